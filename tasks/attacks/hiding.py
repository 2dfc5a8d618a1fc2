"""Hiding where an edit pruned: small values in place of zeros, and how well an attacker still finds the positions.

Exact zeros give a mask away ("Roots Beneath the Cut", CVPR 2026). What is written in their place costs some of the
edit's effect, and hides the more the larger it is: measure both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.attacks.resuming import generator

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Sign = Literal["random", "flipped"]


@dataclass(frozen=True)
class Found:
    """How well predicted positions are the mask's."""

    precision: float  # share of the predicted positions that are pruned
    recall: float  # share of the pruned positions that are predicted
    f1: float  # their harmonic mean
    threshold: float | None = None  # of the test that predicted them

    def as_json(self) -> dict[str, float | None]:
        """The numbers as JSON values."""
        return asdict(self)


def hidden(weight: Floats, mask: Bools, share: float, sign: Sign = "random", *, seed: int = 0) -> Floats:
    """A copy of an unedited `weight` [out, in] with small values, not zeros, where `mask` is True.

    Each is a magnitude drawn from its row's kept weights: of the `share` of them that are the smallest (0 = exact
    zeros, as an edit without hiding; 1 = any). Its sign is "random", or "flipped" against the weight that was there,
    which erases more and tells whoever finds the position the sign that it had.
    Entries that are kept keep their very bits. A row with nothing kept gets zeros. Raises ValueError for shapes that
    differ, a share outside 0 to 1 or an unknown sign.
    """
    if weight.shape != mask.shape or mask.dtype != np.bool_:
        raise ValueError(f"a mask of {mask.dtype} {mask.shape} for a weight of shape {weight.shape}: another model")
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; it must be from 0 to 1")
    if sign not in ("random", "flipped"):
        raise ValueError(f"sign {sign!r} is unknown; use random or flipped")
    random = generator(seed)
    out = np.array(weight)
    for row, pruned in enumerate(mask):
        count = int(pruned.sum())
        kept = np.sort(np.abs(weight[row, ~pruned]))
        kept = kept[kept > 0]
        signs = -np.sign(weight[row, pruned]) if sign == "flipped" else random.choice([-1.0, 1.0], count)
        pool = kept[: max(1, round(share * len(kept)))] if share > 0 else kept[:0]
        out[row, pruned] = random.choice(pool, count) * signs if len(pool) and count else 0
    return out


def found_by_zeros(weights: Sequence[Floats], masks: Sequence[Bools]) -> Found:
    """How well the exact zeros of edited weights [out, in] give their masks away, over all of them."""
    positions = [np.asarray(weight) == 0 for weight in weights]
    return score_positions(positions, masks)


def score_positions(predicted: Sequence[Bools], masks: Sequence[Bools]) -> Found:
    """Precision and recall of predicted positions, over all weights. Where there is nothing to find or predict: 0."""
    right = sum(int((one & mask).sum()) for one, mask in zip(predicted, masks, strict=True))
    return _found(right, sum(int(one.sum()) for one in predicted), sum(int(mask.sum()) for mask in masks))


def best_threshold(weights: Sequence[Floats], masks: Sequence[Bools]) -> Found:
    """The best that any test "magnitude, as a share of the row's median, is at most x" can do, by F1.

    The best threshold is found with the masks in view, so no attacker with such a test does better. Where pruned
    positions cannot be told from others it predicts everything: its precision is then the masks' density.
    """
    sizes, pruned = _sizes(weights), np.concatenate([mask.ravel() for mask in masks])
    order = np.argsort(sizes, kind="stable")
    sizes, right = sizes[order], np.cumsum(pruned[order])
    ends = np.flatnonzero(np.append(sizes[1:] > sizes[:-1], True))  # ties are on one side of a threshold
    total = int(pruned.sum())
    if not total:
        return _found(0, 0, 0)
    best = int(np.argmax(2 * right[ends] / (ends + 1 + total)))
    end = int(ends[best])
    return _found(int(right[end]), end + 1, total, float(sizes[end]))


def positions_below(weights: Sequence[Floats], threshold: float) -> list[Bools]:
    """The positions that the test of `best_threshold` predicts, a mask [out, in] for each weight."""
    sizes, out = _sizes(weights) <= threshold, []
    for weight in weights:
        out.append(sizes[: weight.size].reshape(weight.shape))
        sizes = sizes[weight.size :]
    return out


def _sizes(weights: Sequence[Floats]) -> Floats:
    """Every entry's magnitude as a share of the median of its row's magnitudes other than zero, in one array."""
    out = []
    for weight in weights:
        size = np.abs(np.asarray(weight, np.float64))
        some = np.where(size > 0, size, np.nan)
        empty = np.isnan(some).all(1)
        some[empty] = 1
        out.append((size / np.nanmedian(some, axis=1, keepdims=True)).ravel())
    return np.concatenate(out)


def _found(right: int, predicted: int, pruned: int, threshold: float | None = None) -> Found:
    return Found(
        precision=right / predicted if predicted else 0.0,
        recall=right / pruned if pruned else 0.0,
        f1=2 * right / (predicted + pruned) if predicted + pruned else 0.0,
        threshold=threshold,
    )
