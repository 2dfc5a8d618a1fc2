"""The arrays of an activation store: how they are laid out, and which energies may go in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray
from zarr.codecs import Crc32cCodec

from storage import zarrs
from tasks.concepts.prompts import Prompt
from tasks.diffusion.spec import NeuronSite

DIMS = ("prompt", "step", "branch", "neuron")
TOKEN_TOLERANCE = 1e-3  # relative; float32 sums over thousands of neurons stay far below it


def add_coordinates(
    group: zarr.Group,
    prompts: Sequence[Prompt],
    timesteps: Sequence[float],
    branches: Sequence[str],
    steps: Sequence[int] | None = None,
) -> None:
    """Adds the coordinates of a plan, and no prompt complete; `steps` are all, from 0, unless given."""
    names = np.array([prompt.name for prompt in prompts], zarrs.STRING)
    zarrs.add_array(group, "prompt", ["prompt"], names)
    zarrs.add_array(group, "text", ["prompt"], np.array([prompt.text for prompt in prompts], zarrs.STRING))
    zarrs.add_array(group, "seed", ["prompt"], np.array([prompt.seed for prompt in prompts], np.int64))
    zarrs.add_array(group, "step", ["step"], np.array(range(len(timesteps)) if steps is None else steps, np.int32))
    zarrs.add_array(group, "timestep", ["step"], np.array(timesteps, np.float64))
    zarrs.add_array(group, "branch", ["branch"], np.array(list(branches), zarrs.STRING))
    zarrs.add_array(group, "complete", ["prompt"], np.zeros(len(prompts), np.uint8), chunks=(1,))


def add_site(group: zarr.Group, site: NeuronSite, prompts: int, steps: int, branches: int) -> None:
    """Adds a site's group, with energies [prompt, step, branch, neuron] that are all missing.

    A site that sees the same at every step has no step; one with another's energies has none of its own.
    """
    own = group.create_group(site.name, attributes=zarrs.site_attributes(site))
    if site.source:
        return
    shape = (prompts, branches, site.width) if site.once else (prompts, steps, branches, site.width)
    own.create_array(
        "energy",
        shape=shape,
        dtype=np.float32,
        chunks=(1, *shape[1:]),
        fill_value=np.nan,
        compressors=[Crc32cCodec()],
        dimension_names=[dim for dim in DIMS if not (site.once and dim == "step")],
        attributes={"long_name": "sum over tokens of the squared, token-normalised activation", "units": "1"},
    )


def checked(
    site: str, energy: ArrayLike, shape: tuple[int, ...], tokens: Mapping[str, ArrayLike]
) -> NDArray[np.float32]:
    """One site's energies [step, branch, neuron] or [branch, neuron], ready to be stored; see ActivationStore.write."""
    values = np.asarray(energy, np.float32)
    if values.shape != shape:
        dims = "[step, branch, neuron]" if len(shape) == 3 else "[branch, neuron]"
        raise ValueError(f"energies of {site} have the shape {values.shape}, but {dims} is {shape} here")
    if site not in tokens:
        raise ValueError(f"the number of tokens of {site} is missing; the sums of its energies are checked against it")
    sums = values.sum(-1, dtype=np.float64)
    wanted = np.broadcast_to(np.asarray(tokens[site]), sums.shape)
    good = (np.abs(sums - wanted) <= TOKEN_TOLERANCE * wanted) & (values >= 0).all(-1)
    if not good.all():
        first = tuple(np.argwhere(~good)[0])
        where = f"step {first[0]}, branch {first[1]}" if len(first) == 2 else f"branch {first[0]}"
        raise ValueError(
            f"energies of {site} sum to {sums[first]:.6g} at {where}, but must be finite, "
            f"not negative and sum to its {wanted[first]} tokens; the model may have overflowed: try float32"
        )
    return values
