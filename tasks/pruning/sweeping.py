"""How many weights every point of a grid prunes, from one ranking: the densities of a sweep without its masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import xarray as xr

from tasks.pruning.rankings import Ranking, compiled


def count_pruned(
    ranking: Ranking, width: int, counts: Sequence[int], t_hats: Sequence[int], vote_shares: Sequence[float]
) -> xr.DataArray:
    """Pruned weights of one site, int64 (count, t_hat, vote_share): the sum of `masks.mask` at every point of a grid.

    `counts` are the candidates a row (see `masks.candidates`), `t_hats` the first steps that vote. Raises ValueError if
    a point is outside what the ranking holds.
    """
    if not counts or not 1 <= min(counts) <= max(counts) <= ranking.depth:
        raise ValueError(f"counts are {list(counts)} and the ranking holds 1 to {ranking.depth}; rank deeper")
    if not t_hats or not 1 <= min(t_hats) <= max(t_hats) <= ranking.steps:
        raise ValueError(f"t_hats are {list(t_hats)}; each must be in 1 to {ranking.steps}, the captured steps")
    if not vote_shares or not all(0 <= share < 1 for share in vote_shares):
        raise ValueError(f"vote_shares are {list(vote_shares)}; each must be 0 or more and below 1")
    if ranking.neuron[:, :, : max(counts)].max(initial=0) >= width:
        raise ValueError(f"the ranking names a neuron that a site with {width} does not have; rank the site again")
    needed = [[math.floor(Fraction(str(share)) * t_hat) for share in vote_shares] for t_hat in t_hats]
    pruned = _count(ranking.neuron, ranking.kept, width, np.array(counts), np.array(t_hats), np.array(needed, np.int64))
    return xr.DataArray(
        pruned,
        {"count": list(counts), "t_hat": list(t_hats), "vote_share": list(vote_shares)},
        ("count", "t_hat", "vote_share"),
        name="pruned",
    )


@compiled
def _count(
    neuron: npt.NDArray[np.uint16],
    kept: npt.NDArray[np.bool_],
    width: int,
    counts: npt.NDArray[np.int64],
    t_hats: npt.NDArray[np.int64],
    needed: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Pruned weights [count, t_hat, vote_share]; more votes than needed [t_hat, vote_share] prune."""
    pruned = np.zeros((counts.size, t_hats.size, needed.shape[1]), np.int64)
    votes = np.zeros(width, np.int64)
    for row in range(neuron.shape[1]):
        for c in range(counts.size):
            votes[:] = 0
            for step in range(t_hats.max()):
                for rank in range(counts[c]):
                    votes[neuron[step, row, rank]] += kept[step, row, rank]
                for t in range(t_hats.size):
                    if t_hats[t] == step + 1:
                        for share in range(needed.shape[1]):
                            pruned[c, t, share] += np.sum(votes > needed[t, share])
    return pruned
