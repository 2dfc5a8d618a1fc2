"""A mask the way of the paper's reference code, for one sparsity: written from its description, none of its code.

For every step and site, the scores of all weights are sorted in full for the target and again for the reference; of the
first `count` of each row those that score higher for the target are kept, as a sparse matrix. The mask is the union of
the first t_hat matrices. Another sparsity starts again.

Two things are kinder to it than the original: scores are ranked in float32, and matrices stay in memory. Sorts are
stable, so that a tie goes to the lower neuron and masks can be compared bit for bit; torch's CPU sort costs the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

SORT = {"dim": 1, "descending": True, "stable": True}


def step_matrix(weight: torch.Tensor, target: torch.Tensor, reference: torch.Tensor, count: int) -> torch.Tensor:
    """What one step keeps of a site: sparse bool [out, neuron], for weight [out, neuron] and norms [neuron]."""
    target_scores = weight.abs() * target
    reference_scores = weight.abs() * reference
    best = torch.sort(target_scores, **SORT).indices[:, :count]
    torch.sort(reference_scores, **SORT)  # the second full sort; which of the target's best are kept needs values only
    kept = target_scores.gather(1, best) > reference_scores.gather(1, best)
    rows = torch.arange(len(weight)).unsqueeze(1).expand_as(best)
    where = torch.stack([rows[kept], best[kept]])
    values = torch.ones(where.shape[1], dtype=torch.bool)
    return torch.sparse_coo_tensor(where, values, weight.shape, check_invariants=False)


def union(matrices: Sequence[torch.Tensor], t_hat: int) -> torch.Tensor:
    """The mask [out, neuron] of the first `t_hat` steps."""
    pruned = torch.zeros(matrices[0].shape, dtype=torch.bool)
    for matrix in matrices[:t_hat]:
        rows, neurons = matrix._indices()
        pruned[rows, neurons] = True
    return pruned
