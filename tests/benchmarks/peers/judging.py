"""Draws a concept's evaluation prompts and judges them, and says how far the shares can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.concepts.concept import Expectation
from tasks.diffusion import pipelines
from tasks.diffusion.spec import CaptureSpec
from tasks.metrics import classifier

BATCH = 10  # images drawn at once, as the command line does
RESAMPLES = 2000
COVERAGE = 0.95
SEED = 0  # of the resampling

Hits = list[list[bool]]  # for each prompt, whether the judge saw each of the labels that it names


def judge(pipe: Any, expected: Sequence[Expectation], spec: CaptureSpec, folder: Path) -> Hits:
    """Draw each prompt from its own seed and hold it to its labels."""
    hits: Hits = []
    for start in range(0, len(expected), BATCH):
        batch = expected[start : start + BATCH]
        seen = classifier.load(folder).labels(pipelines.generate(pipe, [one.prompt for one in batch], spec))
        for one, found in zip(batch, seen, strict=True):
            hits.append([right for _, right in classifier.hits([one.labels], [found])])
    return hits


def accuracy(hits: Hits) -> dict[str, Any]:
    """The share of labels that the judge saw, with its interval."""
    return share(_right(hits), np.array([len(one) for one in hits]))


def kept(after: Hits, before: Hits) -> dict[str, Any]:
    """Accuracy after an edit relative to that before it, over the same prompts, with its interval."""
    return share(_right(after), _right(before))


def share(part: np.ndarray, whole: np.ndarray) -> dict[str, Any]:
    """sum(part) / sum(whole) over prompts: {"share", "low", "high", "n"}, the first three None if there is no whole.

    low and high are the percentile bootstrap's over prompts, drawn with replacement. They say how much chance is in
    which prompts were asked for, and nothing where every prompt came out alike.
    """
    if not whole.sum():
        return {"share": None, "low": None, "high": None, "n": len(whole)}
    drawn = resampled(part, whole, np.random.default_rng(SEED))
    low, high = interval(drawn)
    return {"share": round(float(part.sum() / whole.sum()), 4), "low": low, "high": high, "n": len(whole)}


def resampled(part: np.ndarray, whole: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The share in each resample [RESAMPLES]; NaN where a resample has no whole."""
    picked = rng.integers(len(part), size=(RESAMPLES, len(part)))
    parts, wholes = part[picked].sum(1), whole[picked].sum(1)
    return np.divide(parts, wholes, out=np.full(RESAMPLES, np.nan), where=wholes > 0)


def interval(drawn: np.ndarray) -> tuple[float, float]:
    """The central COVERAGE of resampled values."""
    low, high = np.nanquantile(drawn, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return round(float(low), 4), round(float(high), 4)


def _right(hits: Hits) -> np.ndarray:
    return np.array([sum(one) for one in hits])
