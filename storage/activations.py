"""Energies of one prompt set under one capture profile: activations/<profile>/<prompt-set>.zarr.

The file format, plain Zarr v3, for `xr.open_datatree(url, engine="zarr", consolidated=False, chunks={})`:

    /                   attributes: schema, schema_version, profile (all that changes energies), sites (names, in the
                        model's order), planned (a digest of each part of the plan)
    prompt(prompt)      str, 16 hex digits of the sha256 of the JSON [text, seed]; text(prompt) str; seed(prompt) i8
    step(step)          i4, index of the denoiser call; timestep(step) f8, the scheduler's value there, may repeat
    branch(branch)      str, "uncond" or "cond"
    complete(prompt)    u1, chunk 1: 1 once every site of the prompt is stored; written last
    /<site>             a group for each site, named <component>.<qualified name>; attributes kind, width, rows
    /<site>/energy      (prompt, step, branch, neuron) f4, fill NaN, chunks (1, steps, branches, neurons)

Every chunk carries a crc32c and nothing else: compression gains too little on energies. One planner writes all
metadata, workers write whole chunks of their own prompts, so neither ever waits for the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import ArrayLike, NDArray
from zarr.codecs import Crc32cCodec

from storage import zarrs
from storage.blocks import lazy_energy
from storage.urls import Root, RootLike, digest
from tasks.concepts.prompts import Prompt
from tasks.diffusion.spec import NeuronSite

SCHEMA = "conceptprune-activations"
SCHEMA_VERSION = 1
DIMS = ("prompt", "step", "branch", "neuron")
TOKEN_TOLERANCE = 1e-3  # relative; float32 sums over thousands of neurons stay far below it


class ActivationStore:
    """The energies of one prompt set under one profile; nothing is touched before a method is called."""

    def __init__(self, root: RootLike, profile: str, prompt_set: str) -> None:
        self.path = Root(root).path("activations", profile, prompt_set, suffix=".zarr")

    @property
    def url(self) -> str:
        """What xarray and zarr open."""
        return str(self.path)

    def exists(self) -> bool:
        """Whether it has been planned."""
        return (self.path / "zarr.json").is_file()

    def plan(
        self,
        prompts: Sequence[Prompt],
        sites: Sequence[NeuronSite],
        timesteps: Sequence[float],
        branches: Sequence[str],
        attributes: Mapping[str, object],
    ) -> None:
        """Lays the store out: all metadata and coordinates, no energies. Any number of planners may race.

        `attributes` is the profile in JSON values, the same for every planner. Raises ValueError if there is
        nothing to capture, or if a store that is there already was planned from anything else.
        """
        parts = {"prompts": prompts, "sites": sites, "timesteps": timesteps, "branches": branches}
        if empty := [name for name, values in parts.items() if not len(values)]:
            raise ValueError(f"activations without {' or '.join(empty)} were planned; give at least one")
        own = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "profile": dict(attributes),
            "sites": [site.name for site in sites],
            "planned": {
                "prompts": digest([[prompt.text, prompt.seed] for prompt in prompts]),
                "sites": digest([[site.name, site.kind, site.width, site.rows] for site in sites]),
                "timesteps": digest([float(t) for t in timesteps]),
                "branches": digest(list(branches)),
                "profile": digest(dict(attributes)),
            },
            "coordinates": "text seed timestep",  # what xarray shall not take for data
        }

        def fill(group: zarr.Group) -> None:
            _add_coordinates(group, prompts, timesteps, branches)
            for site in sites:
                _add_site(group, site, (len(prompts), len(timesteps), len(branches), site.width))

        if self.exists() or not zarrs.create(self.path, own, fill):
            self._check_planned(own)

    def pending(self) -> list[int]:
        """The slots, indices along prompt, that are not complete."""
        with self._reading("the marks of completeness"):
            return [int(slot) for slot in np.flatnonzero(self._complete()[...] != 1)]

    def write(self, slot: int, energies: Mapping[str, ArrayLike], tokens: Mapping[str, int]) -> None:
        """Stores one prompt: {site: energy [step, branch, neuron]}, {site: tokens}; its mark of completeness last.

        A slot that is complete keeps what it has: what was read once never changes. Raises ValueError, before anything
        is written, if a site is missing or unknown, a shape is wrong, or a (step, branch) does not sum to the tokens.
        """
        group = zarrs.open_group(self.path, writable=True)
        complete = self._complete(group)
        if not 0 <= slot < complete.shape[0]:
            raise ValueError(f"slot {slot} is not one of the {complete.shape[0]} prompts planned in {self.path}")
        names = zarrs.attributes(group)["sites"]
        if set(energies) != set(names):
            odd = sorted(set(energies) ^ set(names))
            raise ValueError(f"energies for {len(names)} sites were expected; {odd[0]} is missing or was not planned")
        arrays = {name: zarrs.array(group, f"{name}/energy") for name in names}
        checked = {name: _checked(name, energies[name], arrays[name].shape[1:], tokens) for name in names}
        if complete[slot] == 1:
            return
        for name in names:
            arrays[name][slot] = checked[name]
        complete[slot] = 1

    def energy(self, site: str) -> xr.DataArray:
        """A site's energies (prompt, step, branch, neuron) f4, lazily, one dask chunk a prompt, with all coordinates.

        Raises ValueError if a prompt is pending or the site unknown; computing it raises DamagedStore, with store, site
        and prompt, if a chunk is damaged or gone.
        """
        if pending := self.pending():
            raise ValueError(
                f"{len(pending)} of {self.size()} prompts of {self.path} are not captured yet; "
                "run the capture again, it does only what is missing"
            )
        group = zarrs.open_site(self.path, site)
        with self._reading(f"site {site} or the list of prompts and steps"):
            node = zarrs.array(group, "energy")
            with xr.open_dataset(self.url, engine="zarr", consolidated=False, chunks=None) as root:
                coords = root.coords.to_dataset().load().coords
        data = lazy_energy(self.path, site, coords["prompt"].values.tolist(), node.shape)
        return xr.DataArray(data, coords, DIMS, name="energy", attrs=node.attrs.asdict())

    def open(self) -> xr.DataTree:
        """All of it, lazily, as anyone with xarray sees it; prompts that are pending read as NaN."""
        zarrs.open_group(self.path)
        return xr.open_datatree(self.url, engine="zarr", consolidated=False, chunks={})

    def sites(self) -> list[NeuronSite]:
        """The sites, in the model's order."""
        return zarrs.read_sites(self.path)

    def attributes(self) -> dict[str, Any]:
        """The profile it was planned with."""
        return dict(zarrs.attributes(zarrs.open_group(self.path))["profile"])

    def size(self) -> int:
        """How many prompts were planned."""
        return int(self._complete().shape[0])

    def prompts(self) -> list[tuple[str, int]]:
        """The (text, seed) of every slot, in order."""
        with self._reading("its list of prompts"):
            group = zarrs.open_group(self.path)
            texts, seeds = zarrs.read_all(group, "text"), zarrs.read_all(group, "seed")
        return [(str(text), int(seed)) for text, seed in zip(texts, seeds, strict=True)]

    def reset(self, slot: int) -> None:
        """Makes one prompt pending again: what to do about a damaged one."""
        self._complete(zarrs.open_group(self.path, writable=True))[slot] = 0

    def _complete(self, group: zarr.Group | None = None) -> zarr.Array[Any]:
        return zarrs.array(group or zarrs.open_group(self.path), "complete")

    def _reading(self, what: str) -> Any:
        return zarrs.reading(f"{self.path}: {what}", "delete the store and capture it again")

    def _check_planned(self, own: Mapping[str, Any]) -> None:
        there = zarrs.attributes(zarrs.open_group(self.path))
        if (there.get("schema"), there.get("schema_version")) != (SCHEMA, SCHEMA_VERSION):
            raise ValueError(
                f"{self.path} is not of schema {SCHEMA} {SCHEMA_VERSION}; delete it or choose another root"
            )
        if differ := [part for part, value in own["planned"].items() if there["planned"].get(part) != value]:
            raise ValueError(
                f"{self.path} was planned with other {' and '.join(differ)}; what changes energies must change "
                "the profile, and what changes prompts the prompt set"
            )


def _add_coordinates(
    group: zarr.Group, prompts: Sequence[Prompt], timesteps: Sequence[float], branches: Sequence[str]
) -> None:
    names = np.array([prompt.name for prompt in prompts], zarrs.STRING)
    zarrs.add_array(group, "prompt", ["prompt"], names)
    zarrs.add_array(group, "text", ["prompt"], np.array([prompt.text for prompt in prompts], zarrs.STRING))
    zarrs.add_array(group, "seed", ["prompt"], np.array([prompt.seed for prompt in prompts], np.int64))
    zarrs.add_array(group, "step", ["step"], np.arange(len(timesteps), dtype=np.int32))
    zarrs.add_array(group, "timestep", ["step"], np.array(timesteps, np.float64))
    zarrs.add_array(group, "branch", ["branch"], np.array(list(branches), zarrs.STRING))
    zarrs.add_array(group, "complete", ["prompt"], np.zeros(len(prompts), np.uint8), chunks=(1,))


def _add_site(group: zarr.Group, site: NeuronSite, shape: tuple[int, int, int, int]) -> None:
    group.create_group(site.name, attributes=zarrs.site_attributes(site)).create_array(
        "energy",
        shape=shape,
        dtype=np.float32,
        chunks=(1, *shape[1:]),
        fill_value=np.nan,
        compressors=[Crc32cCodec()],
        dimension_names=DIMS,
        attributes={"long_name": "sum over tokens of the squared, token-normalised activation", "units": "1"},
    )


def _checked(site: str, energy: ArrayLike, shape: tuple[int, ...], tokens: Mapping[str, int]) -> NDArray[np.float32]:
    """One site's energies [step, branch, neuron], ready to be stored; see ActivationStore.write."""
    values = np.asarray(energy, np.float32)
    if values.shape != shape:
        raise ValueError(
            f"energies of {site} have the shape {values.shape}, but [step, branch, neuron] is {shape} here"
        )
    if site not in tokens:
        raise ValueError(f"the number of tokens of {site} is missing; the sums of its energies are checked against it")
    sums = values.sum(-1, dtype=np.float64)
    good = (np.abs(sums - tokens[site]) <= TOKEN_TOLERANCE * tokens[site]) & (values >= 0).all(-1)
    if not good.all():
        step, branch = np.argwhere(~good)[0]
        raise ValueError(
            f"energies of {site} sum to {sums[step, branch]:.6g} at step {step}, branch {branch}, but must be finite, "
            f"not negative and sum to its {tokens[site]} tokens; the model may have overflowed: try float32"
        )
    return values
