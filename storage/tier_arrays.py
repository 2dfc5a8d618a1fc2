"""The arrays of a tier store: how they are laid out, what they cost, and which values may go in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray
from zarr.codecs import Crc32cCodec

from storage import zarrs
from tasks.diffusion.spec import MAX_CALLS, CaptureSpec, NeuronSite, TierKind, TierSpec

CHECKSUM = 4  # bytes that a crc32c adds to a chunk


@dataclass(frozen=True)
class Variable:
    """One array of a site."""

    name: str
    axes: tuple[str, ...]  # after prompt, step and branch
    dtype: type[np.floating[Any]]
    chunk_steps: int | None  # steps in a chunk; None = all
    long_name: str


VARIABLES: dict[TierKind, tuple[Variable, ...]] = {
    "pooled": (
        Variable("mean", ("neuron",), np.float32, None, "mean activation over tokens"),
        Variable("absmax", ("neuron",), np.float32, None, "largest absolute activation over tokens"),
        Variable("positive", ("neuron",), np.float32, None, "share of tokens whose activation is above 0"),
    ),
    "raw": (Variable("activation", ("token", "neuron"), np.float16, 1, "activation"),),
}


@dataclass(frozen=True)
class Tokens:
    """How many tokens a site sees, and how they lie."""

    count: int
    grid: tuple[int, int] | None  # rows and columns; None where they form no grid


def price(
    tier: TierSpec, sites: Sequence[NeuronSite], tokens: Mapping[str, int], spec: CaptureSpec, prompts: int
) -> int:
    """Bytes that a tier of so many prompts takes in the store; metadata, some KB a site, is left out.

    `sites` are those that it keeps; `tokens` of each are only looked at for a raw tier. Where neither the tier nor the
    capture limits the steps, a scheduler that calls the denoiser more often than once a step takes more.
    """
    steps = (spec.window or spec.steps) if tier.steps is None else len(tier.calls(MAX_CALLS))
    total = 0
    for site in sites:
        for variable in VARIABLES[tier.kind]:
            values = [site.width if axis == "neuron" else tokens[site.name] for axis in variable.axes]
            chunks = 1 if variable.chunk_steps is None else -(-steps // variable.chunk_steps)
            item = np.dtype(variable.dtype).itemsize
            total += steps * len(spec.branches) * prod(values) * item + chunks * CHECKSUM
    return prompts * total


def site_attributes(site: NeuronSite, tokens: Tokens) -> dict[str, Any]:
    """What a site's group says of it. Raises ValueError if its name cannot name a group."""
    grid = None if tokens.grid is None else list(tokens.grid)
    return {**zarrs.site_attributes(site), "tokens": tokens.count, "grid": grid}


def add_site(
    group: zarr.Group, kind: TierKind, site: NeuronSite, tokens: Tokens, prompts: int, steps: int, branches: int
) -> None:
    """Adds a site's group, with arrays [prompt, step, branch, ...] that are all missing."""
    own = group.create_group(site.name, attributes=site_attributes(site, tokens))
    for variable in VARIABLES[kind]:
        rest = tuple(site.width if axis == "neuron" else tokens.count for axis in variable.axes)
        own.create_array(
            variable.name,
            shape=(prompts, steps, branches, *rest),
            dtype=variable.dtype,
            chunks=(1, variable.chunk_steps or steps, branches, *rest),
            fill_value=np.nan,
            compressors=[Crc32cCodec()],
            dimension_names=("prompt", "step", "branch", *variable.axes),
            attributes={"long_name": variable.long_name, "units": "1"},
        )


def checked(name: str, values: ArrayLike | None, array: zarr.Array[Any], steps: Sequence[int]) -> NDArray[Any]:
    """One array of a prompt [step, branch, ...], ready to be stored; see TierStore.write."""
    if values is None:
        raise ValueError(f"{name} is missing; give every variable of every site")
    with np.errstate(over="ignore"):  # too large becomes infinite, which is refused
        sound = np.asarray(values).astype(array.dtype, copy=False)
    if sound.shape != array.shape[1:]:
        raise ValueError(f"{name} has the shape {sound.shape}, but one prompt is {array.shape[1:]} here")
    if not (finite := np.isfinite(sound)).all():
        step = steps[int(np.argwhere(~finite)[0][0])]
        most = float(np.finfo(array.dtype).max)
        raise ValueError(
            f"{name} has a value at step {step} that is not finite or above {most:g}, the most that {array.dtype} "
            "keeps; leave this site out, or keep pooled statistics of it (--tier pooled)"
        )
    return sound
