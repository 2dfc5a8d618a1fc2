"""The commands sweep and combine: what can be learned and made of edits that are there."""

from __future__ import annotations

from typing import Any

from flows import options as o
from flows.answering import answer, asked
from tasks.naming import words


def sweep(
    concept: o.Concept,
    sparsity: o.Sparsities = None,
    t_hat: o.THats = None,
    vote_share: o.VoteShares = None,
    images: o.Images = None,
    branch: o.Branch = None,
    prompts: o.Prompts = None,
    store: o.Store = None,
    catalog: o.CatalogFile = None,
    model: o.Model = None,
    revision: o.Revision = None,
    variant: o.Variant = None,
    judge: o.Judge = None,
    device: o.Device = None,
    offload: o.Offload = None,
    slicing: o.Slicing = None,
    batch: o.Batch = None,
    as_json: o.Json = False,
    no_prefect: o.NoPrefect = False,
) -> None:
    """Try a grid of k, t_hat and vote share on a captured concept, and say which point to choose and why.

    Densities of all points come from the store alone, in seconds: --sparsity 0.01,0.02,0.05 --t-hat 5,10. With
    --images 6 the model draws six of them, spread over the densities, and the judge tells what each erases and keeps.
    """
    drawing = dict(
        catalog=catalog, model=model, revision=revision, variant=variant, judge=judge, device=device, offload=offload,
        slicing=slicing, batch=batch,
    )  # fmt: skip
    options = dict(
        concept=concept, sparsities=words(sparsity), t_hats=words(t_hat), vote_shares=words(vote_share),
        images=images, branch=branch, prompts=prompts, store=store, **drawing,
    )  # fmt: skip
    from flows import erasing, showing_sweep
    from flows.sweep import SweepRequest

    def work() -> Any:
        given = [f"--{name}" for name, value in drawing.items() if value is not None]
        if given and not images:
            raise ValueError(f"{', '.join(given)} only matters for drawing images; add --images 6, or leave it out")
        return erasing.sweep(asked(SweepRequest, options), no_prefect)

    answer(work, as_json, showing_sweep.print_sweep)


def combine(
    name: o.Combined,
    erase: o.ErasedParts,
    protect: o.ProtectedParts = None,
    store: o.Store = None,
    as_json: o.Json = False,
    no_prefect: o.NoPrefect = False,
) -> None:
    """Make one edit of several: what any of them prunes, but for what protected concepts need.

    conceptprune combine animals --erase fox,panda --protect owl. Every part is an edit in the store, with its own k;
    order does not matter. To add or remove a concept, run it again with the parts that you want.
    """
    options = dict(name=name, erase=words(erase), protect=words(protect), store=store)
    from flows import erasing, showing_sweep
    from flows.combine import CombineRequest

    answer(lambda: erasing.combine(asked(CombineRequest, options), no_prefect), as_json, showing_sweep.print_combined)
