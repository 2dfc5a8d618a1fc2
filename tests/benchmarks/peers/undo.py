"""What UCE takes away can be said in other words: the concept drawn from embeddings that the edit maps to the old keys.

    python -m tests.benchmarks.peers.undo --concepts fox,blob

UCE's weights are W M with one invertible M, so for the embeddings M^-1 c the edited model has the keys and values that
the base has for c. It draws the concept from them as the base does: the edit moved its name, not the concept. Whoever
has both models' weights can solve for M.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch

from flows.config import DEMO
from tasks.concepts.concept import Expectation
from tasks.diffusion.spec import CaptureSpec
from tasks.metrics import classifier
from tests.benchmarks.peers import judging, uce
from tests.benchmarks.peers.methods import FULL, Case, opened
from tests.benchmarks.peers.wording import embed, other_texts


def undone(embeddings: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """The embeddings [..., width] of which the edited model makes the base's keys and values of the given ones."""
    return torch.linalg.solve(matrix, embeddings.double().mT).mT.to(embeddings.dtype)


def measure(case: Case) -> dict[str, float]:
    """The concept's accuracy under UCE, from its prompts and from the embeddings that undo the edit."""
    keep, settings = other_texts(case.pipe, case.catalog, case.concept.slug), case.budget.uce
    matrix = uce.transform(uce.directions(case.pipe, case.concept, case.words, keep, settings), settings)
    change, out = uce.uce(case.pipe, case.concept, case.words, keep, settings), {}
    expected, spec = case.expected["concept"], case.plan.capture.spec
    for name, how in (("prompts", lambda c: c), ("undone", lambda c: undone(c, matrix))):
        with change.on(case.pipe):
            hits = [hit for start in range(0, len(expected), judging.BATCH)
                    for hit in draw(case, expected[start : start + judging.BATCH], spec, how)]  # fmt: skip
        out[name] = sum(hits) / len(hits)
    return out


def draw(case: Case, expected: Sequence[Expectation], spec: CaptureSpec, how: Any) -> list[bool]:
    """Whether the judge sees each label, in images from the prompts' embeddings as `how` makes them."""
    images = case.pipe(
        prompt_embeds=how(embed(case.pipe, [one.prompt.text for one in expected])),
        negative_prompt_embeds=embed(case.pipe, [""] * len(expected)),
        num_inference_steps=spec.steps,
        guidance_scale=spec.guidance,
        generator=[torch.Generator("cpu").manual_seed(one.prompt.seed) for one in expected],
    ).images
    seen = classifier.load(case.plan.request.judge_path).labels(images)
    return [right for _, right in classifier.hits([one.labels for one in expected], seen)]


def main(arguments: list[str] | None = None) -> None:
    """Print what was measured of each concept."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers.undo", description=__doc__)
    parser.add_argument("--concepts", default="fox,blob", help="slugs of the bundled catalog, by commas")
    for slug in parser.parse_args(arguments).concepts.split(","):
        with opened(slug, DEMO, FULL) as case:
            print(slug, {name: f"{share:.0%}" for name, share in measure(case).items()}, flush=True)


if __name__ == "__main__":
    main()
