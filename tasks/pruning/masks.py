"""Masks: which weights of a site an edit prunes, by the votes of its ranking.

    votes[out, neuron] = how many of the first t_hat steps keep the neuron among the row's best `count`
    mask[out, neuron]  = votes > vote_share * t_hat

Sparsity and vote share are taken as the decimal numbers that a person wrote: 0.29 of 100 neurons is 29, and a share of
0.29 of 100 votes is reached by the 30th. Binary floating point would give 28 and 29.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import ROUND_UP, Context, Decimal
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tasks.diffusion.spec import parse_sparsity
from tasks.pruning.kernel import compiled
from tasks.pruning.rankings import Ranking

Bools = npt.NDArray[np.bool_]


def candidates(sparsity: Decimal | str | float, width: int) -> int:
    """How many neurons of a row of `width` are candidates: floor(sparsity * width), by the sparsity's decimal value.

    >>> candidates(0.29, 100), candidates("5%", 1280), candidates("0.0007", 1280)
    (29, 64, 0)

    The result may be 0; `check_sparsity` refuses that. Raises ValueError if sparsity is not above 0 and at most 1.
    """
    share = parse_sparsity(sparsity if isinstance(sparsity, str) else str(sparsity))
    if not share.is_finite() or not 0 < share <= 1:
        raise ValueError(f"sparsity is {share}; it must be above 0 and at most 1, such as 0.05 for 5 %")
    return math.floor(Fraction(share) * width)


def smallest_sparsity(width: int) -> Decimal:
    """The smallest sparsity that gives a row of `width` one candidate: 1 / width, rounded up to six digits.

    >>> smallest_sparsity(1280), smallest_sparsity(48)
    (Decimal('0.00078125'), Decimal('0.0208334'))
    """
    return Context(prec=6, rounding=ROUND_UP).divide(Decimal(1), Decimal(width))


def check_sparsity(sparsity: Decimal | str | float, widths: Mapping[str, int]) -> None:
    """Refuse a sparsity that would leave a site without candidates; `widths` maps site names to their neurons.

    Raises ValueError that names the narrowest site and the smallest sparsity that works for all, or if sparsity is not
    above 0 and at most 1.
    """
    for site in sorted(widths, key=lambda name: (widths[name], name))[:1]:
        if candidates(sparsity, widths[site]) == 0:
            raise ValueError(
                f"sparsity {sparsity} gives no candidate in {site} (width {widths[site]});"
                f" the smallest that works for every chosen site is {smallest_sparsity(widths[site]):f}"
            )


def mask(ranking: Ranking, width: int, count: int, t_hat: int, vote_share: float = 0.0) -> Bools:
    """Mask [out, neuron] of a site with `width` neurons; True = prune.

    `count` is how many of each row's best neurons are candidates (see `candidates`), `t_hat` how many first steps vote,
    `vote_share` the share of those that must be exceeded: 0 prunes what any step keeps (the paper).

    Raises ValueError if count is not in 1 to the ranking's depth, t_hat not in 1 to its steps, vote_share not at least
    0 and below 1, or if the ranking names a neuron that a site of this width does not have.
    """
    if not 1 <= count <= ranking.depth:
        raise ValueError(
            f"count is {count} candidates a row and the ranking holds 1 to {ranking.depth};"
            " choose another sparsity or rank deeper"
        )
    if not 1 <= t_hat <= ranking.steps:
        raise ValueError(f"t_hat is {t_hat}; it must be in 1 to {ranking.steps}, the steps that were captured")
    if not 0 <= vote_share < 1:
        raise ValueError(f"vote_share is {vote_share}; it must be 0 or more and below 1")
    needed = math.floor(Fraction(str(vote_share)) * t_hat)
    pruned, sound = _count_votes(ranking.neuron, ranking.kept, width, count, t_hat, needed)
    if not sound:
        highest = ranking.neuron[:t_hat, :, :count].max()
        raise ValueError(f"the ranking names neuron {highest} of a site with {width}; rank the site again")
    return pruned


@compiled
def _count_votes(
    neuron: npt.NDArray[np.uint16], kept: Bools, width: int, count: int, t_hat: int, needed: int
) -> tuple[Bools, bool]:
    """Where more than `needed` of the first `t_hat` steps keep a neuron among the first `count` ranks: [out, neuron].

    Stops, and returns False beside it, at a neuron of `width` or above: votes are written where the ranking says.
    """
    rows = neuron.shape[1]
    pruned = np.zeros((rows, width), np.bool_)
    votes = np.empty(width, np.uint32)
    for row in range(rows):
        votes[:] = 0
        for step in range(t_hat):
            highest = np.uint16(0)
            for rank in range(count):
                highest = max(highest, neuron[step, row, rank])
            if highest >= width:
                return pruned, False
            for rank in range(count):
                votes[neuron[step, row, rank]] += kept[step, row, rank]
        for place in range(width):
            pruned[row, place] = votes[place] > needed
    return pruned, True
