"""Rankings: for each step and row of a site's weight, the neurons that score best for the target, in order.

A weight's score is Wanda's, abs(weight) * norm, as a float32 product. From one ranking follow the masks of every
sparsity up to its depth and of every t_hat, so this, the costly part, is computed once.

Order is total: the higher score first, and of equal scores the lower neuron. Nothing depends on a sort's stability.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from dask.base import compute as dask_compute
from dask.delayed import delayed

from tasks.pruning import kernel
from tasks.pruning.kernel import Float32 as Float32
from tasks.pruning.kernel import compiled as compiled

compute: Callable[..., tuple[Any, ...]] = dask_compute  # Dask leaves its type open


@dataclass(frozen=True, eq=False)
class Ranking:
    """The best neurons of each row at each step, best first. Raises ValueError if the arrays do not fit together."""

    neuron: npt.NDArray[np.uint16]  # [step, out, rank]
    kept: npt.NDArray[np.bool_]  # [step, out, rank]: the target's score is higher than the reference's, strictly

    def __post_init__(self) -> None:
        if self.neuron.ndim != 3 or self.neuron.shape != self.kept.shape:
            raise ValueError(
                f"neuron has the shape {self.neuron.shape} and kept {self.kept.shape};"
                " both must be [step, out, rank]: rank the site again"
            )
        if self.neuron.dtype != np.uint16 or self.kept.dtype != np.bool_:
            raise ValueError(
                f"neuron is {self.neuron.dtype} and kept is {self.kept.dtype};"
                " expected uint16 and bool: rank the site again"
            )

    @property
    def steps(self) -> int:
        """How many steps were ranked: the largest t_hat that this ranking answers."""
        return int(self.neuron.shape[0])

    @property
    def depth(self) -> int:
        """How many neurons of each row were ranked: the largest count that this ranking answers."""
        return int(self.neuron.shape[2])


def rank_rows(weight: Float32, target_norm: Float32, reference_norm: Float32, depth: int) -> Ranking:
    """Ranking [step, out, rank] of the `depth` neurons of each row with the highest target scores.

    `weight` is [out, neuron], of any sign; the norms are [step, neuron]. Ties go to the lower neuron; a weight of zero
    is never kept, for its scores are equal. Runs on one core and releases the GIL.

    Raises ValueError if shapes do not fit, depth is not in 1..width, the width is above 65535, a value is not finite or
    a norm is negative.
    """
    _check_shapes(weight.shape, target_norm.shape, reference_norm.shape, depth)
    return Ranking(
        *kernel.rank(
            _magnitudes(weight, "weight"),
            _magnitudes(target_norm, "target norm", signed=False),
            _magnitudes(reference_norm, "reference norm", signed=False),
            depth,
        )
    )


def rank_site(
    weight: Float32, target_norm: Float32, reference_norm: Float32, depth: int, row_block: int = 128
) -> Ranking:
    """The ranking that `rank_rows` gives, computed by Dask in blocks of `row_block` rows, all steps at once.

    Each block reads its weights once. Blocks run on Dask's current scheduler: local threads, or the cluster of the
    default distributed.Client. For a cluster, let `weight` be a Dask array, so that its workers load the rows: a NumPy
    one travels inside the graph. The result does not depend on the block.

    Raises ValueError where `rank_rows` does, and if row_block is below 1.
    """
    _check_shapes(weight.shape, target_norm.shape, reference_norm.shape, depth)
    if row_block < 1:
        raise ValueError(f"row_block is {row_block}; it must be 1 or more rows")
    target, reference = delayed(target_norm), delayed(reference_norm)
    rank_block = delayed(rank_rows)
    blocks = (weight[first : first + row_block] for first in range(0, weight.shape[0], row_block))
    parts = compute(*(rank_block(block, target, reference, depth) for block in blocks))
    return Ranking(
        np.concatenate([part.neuron for part in parts], axis=1),
        np.concatenate([part.kept for part in parts], axis=1),
    )


def _check_shapes(
    weight: tuple[int, ...], target_norm: tuple[int, ...], reference_norm: tuple[int, ...], depth: int
) -> None:
    if len(weight) != 2 or weight[0] < 1:
        raise ValueError(f"weight has the shape {weight}; expected [out, neuron] with at least one row")
    width = weight[1]
    if target_norm != reference_norm or len(target_norm) != 2 or target_norm[1] != width or target_norm[0] < 1:
        raise ValueError(
            f"norms have the shapes {target_norm} (target) and {reference_norm} (reference); expected"
            f" [step, {width}] for both, as the weight has {width} neurons"
        )
    if width > kernel.WIDEST:
        raise ValueError(
            f"the site has {width} neurons; a ranking holds at most {kernel.WIDEST}: choose another site kind"
        )
    if not 1 <= depth <= width:
        raise ValueError(f"depth is {depth}; it must be in 1 to {width}, the neurons of a row")


def _magnitudes(values: Float32, name: str, signed: bool = True) -> Float32:
    """Absolute values (-0.0 becomes 0.0, whose bits sort as a number should), in one piece of memory."""
    values = np.asarray(values)
    if not np.can_cast(values.dtype, np.float32):
        raise ValueError(f"{name} is {values.dtype}; expected float32: convert it on purpose, for rounding moves ties")
    broken = ~np.isfinite(values) if signed else ~(np.isfinite(values) & (values >= 0))
    if broken.any():
        raise ValueError(
            f"{name} holds {values[broken][0]} and {np.count_nonzero(broken) - 1} more values that cannot be ranked;"
            f" expected finite numbers{'' if signed else ' of 0 or more'}: load the model or capture the prompts again"
        )
    return np.ascontiguousarray(np.abs(values), dtype=np.float32)
