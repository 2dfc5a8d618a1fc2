"""Means of judgements with 95 % intervals: bootstrapped over images, since an image's judgements hang together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, bootstrap

from tasks.metrics.metric import Judgement

CONFIDENCE = 0.95
RESAMPLES = 2000  # of means
DISTANCE_RESAMPLES = 100  # of distances between sets, which take longer
SEED = 0

Interval = dict[str, float]  # {"value", "low", "high"}


def summarise(before: Sequence[Judgement], after: Sequence[Judgement]) -> dict[str, Any]:
    """The means before and after, and of the change, over all judgements and by group.

    Both are of the same prompts in the same order: the change is paired. Returns {"before", "after", "change":
    {"value", "low", "high"}, "n": judgements, "images", "groups": {group: the same}}; no groups if there is but one.
    Raises ValueError if both are not about the same.
    """
    keys = [(one.index, one.group) for one in before]
    if keys != [(one.index, one.group) for one in after] or not keys:
        raise ValueError(f"{len(before)} judgements before and {len(after)} after are not about the same images")
    names = sorted({group for _, group in keys})
    found = _means(before, after)
    if len(names) > 1:
        parts = {
            name: ([j for j in before if j.group == name], [j for j in after if j.group == name]) for name in names
        }
        found["groups"] = {name: _means(*pair) for name, pair in parts.items()}
    return found


def _means(before: Sequence[Judgement], after: Sequence[Judgement]) -> dict[str, Any]:
    images = sorted({one.index for one in before})
    counts = _by_image(before, images, lambda one: 1.0)
    sums = [_by_image(judgements, images, lambda one: one.value) for judgements in (before, after)]
    return {
        "before": _interval(sums[0], counts),
        "after": _interval(sums[1], counts),
        "change": _interval(sums[1] - sums[0], counts, signed=True),
        "n": len(before),
        "images": len(images),
    }


def _by_image(
    judgements: Sequence[Judgement], images: Sequence[int], value: Callable[[Judgement], float]
) -> NDArray[np.float64]:
    places, out = {image: place for place, image in enumerate(images)}, np.zeros(len(images))
    for one in judgements:
        out[places[one.index]] += value(one)
    return out


def _interval(sums: NDArray[np.float64], counts: NDArray[np.float64], signed: bool = False) -> Interval:
    """The mean of all judgements, and what resampling the images makes of it (percentiles).

    Where every image says the same there is nothing to resample: a share of 0 or 1, and a change (`signed`) of -1, 0 or
    1, lies as far off as Wilson's interval of as many images reaches.
    """
    mean = float(sums.sum() / counts.sum())
    if np.allclose(sums / counts, mean):
        whole = mean in ((-1.0, 0.0, 1.0) if signed else (0.0, 1.0))
        reach = float(binomtest(0, len(sums)).proportion_ci(CONFIDENCE, "wilson").high) if whole else 0.0
        return {"value": mean, "low": max(mean - reach, -1.0 if signed else min(mean, 0.0)),
                "high": min(mean + reach, max(mean, 1.0))}  # fmt: skip
    found = bootstrap(
        (sums, counts), lambda s, c, axis: s.sum(axis) / c.sum(axis), paired=True, vectorized=True, method="percentile",
        confidence_level=CONFIDENCE, n_resamples=RESAMPLES, rng=np.random.default_rng(SEED),
    ).confidence_interval  # fmt: skip
    return {"value": mean, "low": float(found.low), "high": float(found.high)}


def of_pairs(values: NDArray[np.float64]) -> dict[str, Any]:
    """The mean of one value a pair of images: {"value", "low", "high", "n"}."""
    return {**_interval(values, np.ones(len(values))), "n": len(values)}


def of_sets(
    one: NDArray[np.float64],
    other: NDArray[np.float64],
    distance: Callable[[NDArray[np.float64], NDArray[np.float64]], float],
) -> Mapping[str, float]:
    """The distance of two sets of features, with what resampling both makes of it: {"value", "low", "high", "n"}.

    Resampled sets repeat images, so a distance that counts variety (FID) lies higher in them: the interval is of its
    spread, moved to the value itself.
    """
    value, rng = distance(one, other), np.random.default_rng(SEED)
    drawn = [
        distance(one[rng.integers(0, len(one), len(one))], other[rng.integers(0, len(other), len(other))])
        for _ in range(DISTANCE_RESAMPLES)
    ]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail]) - np.median(drawn)
    return {"value": value, "low": float(value + low), "high": float(value + high), "n": len(one)}
