"""Combining concepts: one mask that erases several and spares what others need.

    combined[out, neuron] = (any erased concept's mask) and not (any protected concept's mask)

Each concept brings its finished mask, made with its own sparsity, t_hat and vote share: votes are counted within a
concept and never across them, so a vote share cannot make one concept drop out of the union. Nothing is kept between
calls: adding a concept is a call with one more mask, removing it a call without, and order has no meaning.

All functions here take the masks of one site, {concept: mask [out, neuron]}, True = prune.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tasks.pruning.masks import Bools


@dataclass(frozen=True)
class Overlap:
    """How many weights of one erased concept its protected neighbours keep. Overlaps of several sites add."""

    weights: int  # in the concept's own mask
    spared: int  # of those, in the mask of at least one protected concept: the edit leaves them alone
    by: Mapping[str, int]  # of those, in each protected concept's mask; one weight may count for several

    def __add__(self, other: Overlap) -> Overlap:
        """The overlap of two sites together."""
        names = dict.fromkeys([*self.by, *other.by])
        return Overlap(
            self.weights + other.weights,
            self.spared + other.spared,
            {name: self.by.get(name, 0) + other.by.get(name, 0) for name in names},
        )


def combine(erased: Mapping[str, Bools], protected: Mapping[str, Bools] | None = None) -> Bools:
    """Mask [out, neuron] of what any erased concept prunes and no protected concept does; a new array.

    >>> fox, owl = np.array([[True, True, False]]), np.array([[False, True, False]])
    >>> combine({"fox": fox}, {"owl": owl}).tolist()
    [[True, False, False]]

    Raises ValueError if nothing is erased, a concept is both erased and protected, or the masks are not bool
    [out, neuron] of one shape.
    """
    kept = protected or {}
    _check_roles(erased, kept)
    combined = _union(erased)
    if kept:
        combined &= ~_union(kept)
    return combined


def overlaps(erased: Mapping[str, Bools], protected: Mapping[str, Bools] | None = None) -> dict[str, Overlap]:
    """What protection costs: {erased concept: how many of its weights are spared, in all and by protected concept}.

    Raises ValueError where `combine` does.
    """
    kept = protected or {}
    _check_roles(erased, kept)
    anyone = _union(kept) if kept else np.zeros_like(next(iter(erased.values())))
    return {
        concept: Overlap(
            int(np.count_nonzero(mask)),
            int(np.count_nonzero(mask & anyone)),
            {name: int(np.count_nonzero(mask & other)) for name, other in kept.items()},
        )
        for concept, mask in erased.items()
    }


def check_masks(masks: Mapping[str, Bools]) -> None:
    """Refuse masks {concept: mask} that are not of one site.

    Raises ValueError that names the concept whose mask is not bool, not [out, neuron], or unlike the first's shape.
    """
    for concept, mask in masks.items():
        if mask.dtype != np.bool_ or mask.ndim != 2:
            raise ValueError(f"the mask of {concept} is {mask.dtype} {mask.shape}; expected bool [out, neuron]")
    for concept, mask in masks.items():
        first = next(iter(masks))
        if mask.shape != masks[first].shape:
            raise ValueError(
                f"the mask of {concept} has the shape {mask.shape}, that of {first} {masks[first].shape};"
                " give masks of one site of one model"
            )


def _check_roles(erased: Mapping[str, Bools], protected: Mapping[str, Bools]) -> None:
    if not erased:
        raise ValueError("no concept is erased; give the mask of at least one")
    both = sorted(erased.keys() & protected.keys())
    if both:
        raise ValueError(
            f"{', '.join(both)}: erased and protected at once, which would prune nothing for it;"
            " leave each concept in one of the two"
        )
    check_masks({**erased, **protected})


def _union(masks: Mapping[str, Bools]) -> Bools:
    """What any of at least one mask prunes; a new array."""
    first, *others = masks.values()
    union = first.copy()
    for mask in others:
        union |= mask
    return union
