"""Revival: what was set to zero, filled in again from what was kept, with no data and no training.

After Zhang et al., "Roots Beneath the Cut: Uncovering the Risk of Concept Revival in Pruning-Based Unlearning for
Diffusion Models" (CVPR 2026): exact zeros say which weights were pruned; their matrix is completed from the others, as
if it were nearly of low rank; then the largest of the values found keep their sign, and take a larger magnitude.
The completion is soft-impute (Mazumder, Hastie, Tibshirani, JMLR 2010), or hard-impute where nothing is shrunk:

    missing = entries(low_rank(observed + missing)), again and again

The low rank comes from subspace iteration that goes on from the last iteration's basis (as in randomised SVD, Halko,
Martinsson, Tropp, 2011): two products of the matrix with rank + oversample columns an iteration, no full SVD.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.attacks.resuming import check_at_least, generator, spec_digest, steps_to_run

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Magnitude = Literal["completed", "row-spread", "row-quantiles", "row-max"]
MAGNITUDES: tuple[Magnitude, ...] = ("completed", "row-spread", "row-quantiles", "row-max")


@dataclass(frozen=True)
class CompletionSpec:
    """How a matrix is completed. Raises ValueError for a field that makes no sense."""

    budget: int = 100  # iterations at most
    seed: int = 0  # of the first basis
    rank: int = 32  # of the approximation; at most the matrix's smaller side counts
    shrinkage: float = 0.0  # taken off each singular value, as a share of the observed entries' largest; 0 = hard
    tolerance: float = 1e-4  # relative change of the missing entries at which the completion has converged
    oversample: int = 8  # columns of the basis beyond the rank

    def __post_init__(self) -> None:
        check_at_least("budget", self.budget, 0)
        check_at_least("rank", self.rank, 1)
        check_at_least("oversample", self.oversample, 0)
        check_at_least("shrinkage", self.shrinkage, 0)
        check_at_least("tolerance", self.tolerance, 0)


@dataclass(frozen=True)
class CompletionState:
    """Where a completion stands."""

    spec: str  # digest of the spec that it was begun with
    step: int  # iterations done
    missing: Floats  # [entry] values of the missing entries, in the order of the rows
    basis: Floats  # [in, rank + oversample] orthonormal: where the rows of the matrix mostly lie
    largest: float  # singular value of the observed entries with zeros for the others; what shrinkage is a share of
    changes: tuple[float, ...]  # relative change of the missing entries in each iteration
    converged: bool  # whether the last change was within the tolerance: no further iteration is done

    def pack(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The state as named arrays and JSON values."""
        values = {"spec": self.spec, "step": self.step, "largest": self.largest, "changes": list(self.changes)}
        return {"missing": self.missing, "basis": self.basis}, {**values, "converged": self.converged}

    @classmethod
    def unpack(cls, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> CompletionState:
        """The state that `pack` took apart."""
        return cls(
            spec=str(values["spec"]),
            step=int(values["step"]),
            missing=np.array(arrays["missing"]),
            basis=np.array(arrays["basis"]),
            largest=float(values["largest"]),
            changes=tuple(map(float, values["changes"])),
            converged=bool(values["converged"]),
        )


def zeros_of(weight: Floats) -> Bools:
    """The exact zeros of a weight [out, in], of either sign: what an attacker takes for the mask."""
    return np.asarray(weight) == 0


def complete(
    weight: Floats,
    missing: Bools,
    spec: CompletionSpec,
    state: CompletionState | None = None,
    *,
    steps: int | None = None,
    progress: Callable[[CompletionState], None] | None = None,
) -> CompletionState:
    """Find the `missing` entries [out, in] of a weight [out, in] from the others; `filled` puts them in.

    Works in float32, or in float64 for a float64 weight, on one copy of the weight. `steps` iterations of the budget
    are done, None = all that are left, and none once converged; `progress` gets the state after each. Raises
    ValueError for shapes that differ, a weight that is not of finite floats, no observed entry, a state of another
    spec or another number of missing entries.
    """
    _check(weight, missing)
    matrix: Floats = np.array(weight, np.float64 if weight.dtype == np.float64 else np.float32)
    matrix[missing] = 0
    state = state or _start(matrix, missing, spec)
    if len(state.missing) != int(missing.sum()):
        raise ValueError(f"the state has {len(state.missing)} missing entries, the mask {int(missing.sum())}")
    matrix[missing] = state.missing
    for _ in range(steps_to_run(state.step, spec, steps, state.spec)):
        if state.converged:
            break
        state = _iterated(matrix, missing, spec, state)
        matrix[missing] = state.missing
        if progress:
            progress(state)
    return state


def filled(weight: Floats, missing: Bools, values: Floats) -> Floats:
    """A copy of `weight` [out, in] with `values` [entry] at the missing entries; the others keep their very bits."""
    out = np.array(weight)
    out[missing] = values
    return out


def restored(
    weight: Floats, missing: Bools, values: Floats, magnitude: Magnitude = "row-max", keep: float = 0.6
) -> Floats:
    """`filled` with the magnitudes of the row's kept entries, for a completion's values are too small.

    Only the `keep` share of the values that are the largest of the matrix are filled in, with their signs; the others
    stay zero (the paper: 0.6). Their magnitudes are, by `magnitude`: as they were "completed"; scaled so that their
    mean square is the row's ("row-spread"); the row's own quantiles in the order of the values ("row-quantiles"); or
    the row's largest ("row-max", the paper's). A row with no kept entry other than zero stays zero. Raises ValueError
    for an unknown magnitude or a keep outside 0 to 1.
    """
    _check(weight, missing)
    if magnitude not in MAGNITUDES:
        raise ValueError(f"magnitude {magnitude!r} is unknown; use {', '.join(MAGNITUDES)}")
    if not 0 <= keep <= 1:
        raise ValueError(f"keep is {keep}; it must be from 0 to 1")
    values = np.array(values)
    order = np.argsort(np.abs(values), kind="stable")
    values[order[: len(values) - round(keep * len(values))]] = 0
    out = filled(weight, missing, np.zeros_like(values))
    rows = np.nonzero(missing)[0]
    starts = np.searchsorted(rows, np.arange(len(weight) + 1))  # missing entries come row by row
    for row, (start, stop) in enumerate(zip(starts, starts[1:], strict=False)):
        if start < stop:
            kept = np.abs(out[row][~missing[row]].astype(np.float64))
            out[row, missing[row]] = _rescaled(values[start:stop], kept[kept > 0], magnitude)
    return out


def _rescaled(values: Floats, kept: Floats, magnitude: Magnitude) -> Floats:
    """The values of one row with other magnitudes; zeros stay zeros."""
    if magnitude == "completed":
        return values
    if not len(kept):
        return np.zeros_like(values)
    used = values != 0
    out = np.sign(values)
    if magnitude == "row-max":
        return np.asarray(out * kept.max())
    if magnitude == "row-spread":
        own = np.sqrt(np.mean(values[used] ** 2)) if used.any() else 1.0
        return np.asarray(values * (np.sqrt(np.mean(kept**2)) / own))
    ranks = np.argsort(np.argsort(np.abs(values[used]), kind="stable"), kind="stable")
    out[used] *= np.quantile(kept, (ranks + 0.5) / max(len(ranks), 1))
    return out


def _check(weight: Floats, missing: Bools) -> None:
    if weight.ndim != 2 or weight.shape != missing.shape or missing.dtype != np.bool_:
        raise ValueError(
            f"a weight of shape {weight.shape} with a mask of {missing.dtype} {missing.shape}; give bool [out, in]"
        )
    if not np.issubdtype(weight.dtype, np.floating):
        raise ValueError(f"a weight of {weight.dtype}; floats are needed (bfloat16 as float32)")
    if missing.all():
        raise ValueError("every entry is missing: there is nothing to complete from")
    if not np.isfinite(weight[~missing]).all():
        raise ValueError("the weight is not finite everywhere")


def _start(matrix: Floats, missing: Bools, spec: CompletionSpec) -> CompletionState:
    """The state before the first iteration: zeros, and a basis of a few rounds of subspace iteration."""
    width = min(spec.rank + spec.oversample, *matrix.shape)
    random = generator(spec.seed).standard_normal((matrix.shape[1], width)).astype(matrix.dtype)
    basis = np.linalg.qr(random)[0]
    for _ in range(3):
        basis = np.linalg.qr(matrix.T @ np.linalg.qr(matrix @ basis)[0])[0]
    largest = float(np.linalg.norm(matrix @ basis, 2))
    return CompletionState(
        spec_digest(spec), 0, np.zeros(int(missing.sum()), matrix.dtype), basis, largest, (), not missing.any()
    )


def _iterated(matrix: Floats, missing: Bools, spec: CompletionSpec, state: CompletionState) -> CompletionState:
    """The state after one iteration; `matrix` [out, in] is filled with the state's values."""
    left = np.linalg.qr(matrix @ state.basis)[0]  # [out, column]
    small = left.T @ matrix  # [column, in]
    inner, singular, right = np.linalg.svd(small, full_matrices=False)
    shrunk = np.maximum(singular - spec.shrinkage * state.largest, 0)
    shrunk[spec.rank :] = 0
    approximation = (left @ (inner * shrunk)) @ right
    values = approximation[missing].astype(matrix.dtype)
    size = float(np.linalg.norm(values)) or 1.0
    change = float(np.linalg.norm(values - state.missing)) / size
    return CompletionState(
        spec=state.spec,
        step=state.step + 1,
        missing=values,
        basis=np.ascontiguousarray(right.T),
        largest=state.largest,
        changes=(*state.changes, change),
        converged=change <= spec.tolerance,
    )
