"""Other ways to erase a concept, on the bundled model, judged like ours; docs/results.md has what was measured.

    python -m tests.benchmarks.peers --concepts fox,panda --out peers.json [--methods uce,esd-x] [--budget small]

Each way is written from its paper:

    uce.py              UCE: keys and values of cross-attention, in closed form
    esd.py              ESD-x: cross-attention, fine-tuned against what the frozen model says of the concept
    random_pruning.py   as many weights a site as an edit of ours prunes: at random, and the smallest

and gives a Change (changes.py): the tensors that differ, which go onto a loaded pipeline under `with`. methods.py is
the table of what is compared, judging.py draws and counts, results.py keeps rows and tabulates them.
"""
