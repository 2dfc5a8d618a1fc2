"""Norms of neurons from stored energies: Wanda's feature norm, for each denoiser step.

An energy is a sum over tokens of squared, token-normalised activations, so it adds over prompts and branches:

    norm[step, neuron] = sqrt( sum over prompts and branches of energy[prompt, step, branch, neuron] )

Sums are kept in float64 and always added one prompt at a time, in the order of the prompts and of the branches within
each, so that neither how the energies are chunked nor who computes them can change a bit of the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.delayed import delayed

from tasks.diffusion.spec import BRANCHES, Branch

DIMS = ("prompt", "step", "branch", "neuron")
PROMPTS_AT_ONCE = 16  # loaded in parallel, then added by one task: 33 MB for the widest site of Stable Diffusion 1.5


def energy_by_step(energy: xr.DataArray, branch: Branch = "both") -> npt.NDArray[np.float64]:
    """Energy summed over prompts and the chosen branches, float64 [step, neuron].

    `energy` has the dims prompt, step, branch and neuron, in any order, and may be backed by Dask: its chunks then load
    in parallel. `branch` is "both" (all that were captured), "uncond" or "cond". The result adds: that of two prompt
    sets is the sum of theirs.

    Raises ValueError if a dim or the branch is missing, if there is no prompt, or if a sum is negative or not finite
    (NaN is what a prompt that was never captured reads as).
    """
    chosen = _select(energy, branch)
    nothing = np.zeros((chosen.sizes["step"], chosen.sizes["neuron"]), np.float64)
    if chosen.chunks is None:
        total = _add_prompts(nothing, chosen.values)
    else:
        total = _add_blocks(nothing, chosen.data)
    _check_sum(total, energy.name)
    return total


def column_norms(energy: xr.DataArray, branch: Branch = "both", mean: bool = False) -> npt.NDArray[np.float32]:
    """Norm of each neuron at each step, float32 [step, neuron], rounded once from float64.

    `energy` and `branch` are those of `energy_by_step`, as are the errors. `mean` divides the summed energy by the
    number of prompts before the root is taken; use it for both roles when their sets differ in size.
    """
    total = energy_by_step(energy, branch)
    if mean:
        total /= energy.sizes["prompt"]
    return np.sqrt(total).astype(np.float32)


def role_norms(
    target: xr.DataArray, reference: xr.DataArray, branch: Branch = "both"
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Norms of the target and of the reference role, each float32 [step, neuron], fit to be compared.

    Sets of one size are summed, as in the paper. Sets of unequal size are averaged over their own prompts: none is cut
    short. Raises ValueError where `energy_by_step` does, and if the roles differ in steps or neurons.
    """
    for dim in ("step", "neuron"):
        if target.sizes.get(dim) != reference.sizes.get(dim):
            raise ValueError(
                f"target energies have {target.sizes.get(dim)} {dim}s, reference energies {reference.sizes.get(dim)};"
                " capture both roles with one profile and compare the same site"
            )
    mean = target.sizes.get("prompt") != reference.sizes.get("prompt")
    return column_norms(target, branch, mean), column_norms(reference, branch, mean)


def _select(energy: xr.DataArray, branch: Branch) -> xr.DataArray:
    """Energies of the chosen branches alone, with the dims in the order of DIMS."""
    if set(energy.dims) != set(DIMS):
        raise ValueError(f"energies have the dims {', '.join(map(str, energy.dims))}; expected {', '.join(DIMS)}")
    if energy.sizes["prompt"] == 0:
        raise ValueError("energies hold no prompt; give a prompt set with at least one")
    if branch not in BRANCHES:
        raise ValueError(f"branch {branch!r} is unknown; use {', '.join(BRANCHES)}")
    if branch != "both":
        captured = [str(name) for name in energy.coords["branch"].values] if "branch" in energy.coords else []
        if branch not in captured:
            raise ValueError(
                f"branch {branch!r} is not among the captured ones ({', '.join(captured) or 'unnamed'});"
                " choose one of those or both"
            )
        energy = energy.isel(branch=[captured.index(branch)])
    return energy.transpose(*DIMS)


def _add_blocks(total: npt.NDArray[np.float64], energy: Any) -> npt.NDArray[np.float64]:
    """`_add_prompts` for a Dask array: a chain of sums over runs of whole prompts."""
    chain: Any = total
    for block in energy.rechunk((PROMPTS_AT_ONCE, -1, -1, -1)).to_delayed().ravel():
        chain = delayed(_add_prompts)(chain, block)
    return np.asarray(chain.compute(), np.float64)


def _add_prompts(total: npt.NDArray[np.float64], block: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """`total` [step, neuron] plus each prompt and branch of `block` [prompt, step, branch, neuron], one at a time."""
    total = total.copy()
    for prompt in block:
        for branch in range(prompt.shape[1]):
            total += prompt[:, branch]
    return total


def _check_sum(total: npt.NDArray[np.float64], site: object) -> None:
    sound = np.isfinite(total) & (total >= 0)
    if not sound.all():
        step, neuron = np.argwhere(~sound)[0]
        raise ValueError(
            f"energy of {site or 'a site'} sums to {total[step, neuron]} at step {step}, neuron {neuron}; expected a"
            " finite number of 0 or more: NaN means that a prompt was never captured, so capture the prompt set again"
        )
