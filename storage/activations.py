"""Energies of one prompt set under one capture profile: activations/<profile>/<prompt-set>.zarr.

The file format, plain Zarr v3, for `xr.open_datatree(url, engine="zarr", consolidated=False, chunks={})`:

    /                   attributes: schema, schema_version, profile (all that changes energies), sites (names, in the
                        model's order), planned (a digest of each part of the plan)
    prompt(prompt)      str, 16 hex digits of the sha256 of the JSON [text, seed]; text(prompt) str; seed(prompt) i8
    step(step)          i4, index of the denoiser call; timestep(step) f8, the scheduler's value there, may repeat
    branch(branch)      str, "uncond" or "cond"
    complete(prompt)    u1, chunk 1: 1 once every site of the prompt is stored; written last
    /<site>             a group for each site, named <component>.<qualified name>; attributes kind, width, rows, and
                        where they are not 0, false or empty start (inputs before the neurons), once, source
    /<site>/energy      (prompt, step, branch, neuron) f4, fill NaN, chunks (1, steps, branches, neurons); without step
                        where `once` says that it is the same at every step; not there where `source` names the site
                        whose energies it has too

Every chunk carries a crc32c and nothing else: compression gains too little on energies. One planner writes all
metadata, workers write whole chunks of their own prompts, so neither ever waits for the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any
from urllib.parse import unquote

import dask.array
import numpy as np
import xarray as xr
import zarr
from numpy.typing import ArrayLike, NDArray

from storage import zarrs
from storage.blocks import lazy_array
from storage.energies import DIMS, add_coordinates, add_site, checked
from storage.parallel import at_once
from storage.prompt_stores import PromptStore
from storage.roots import Root, RootLike
from tasks.concepts.prompts import Prompt
from tasks.diffusion.spec import NeuronSite


class ActivationStore(PromptStore):
    """The energies of one prompt set under one profile; nothing is touched before a method is called."""

    schema = "conceptprune-activations"
    schema_version = 1
    remedy = "delete the store and capture it again"
    otherwise = "what changes energies must change the profile, and what changes prompts the prompt set"

    def __init__(self, root: RootLike, profile: str, prompt_set: str) -> None:
        super().__init__(Root(root).path("activations", profile, prompt_set, suffix=".zarr"))

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
        about = {"sites": [site.name for site in sites]}
        planned = {
            "sites": [[site.name, *zarrs.site_attributes(site).values()] for site in sites],
            "timesteps": [float(t) for t in timesteps],
        }

        def fill(group: zarr.Group) -> None:
            add_coordinates(group, prompts, timesteps, branches)
            for site in sites:
                add_site(group, site, len(prompts), len(timesteps), len(branches))

        self._lay_out(about, attributes, prompts, branches, planned, fill)

    def write(self, slot: int, energies: Mapping[str, ArrayLike], tokens: Mapping[str, ArrayLike]) -> None:
        """Stores one prompt: {site: energy [step, branch, neuron]}, {site: tokens}; its mark of completeness last.

        A site that sees the same at every step has [branch, neuron], and its tokens may differ by branch. A slot that
        is complete keeps what it has: what was read once never changes. Raises ValueError, before anything is written,
        if a site is missing or unknown, a shape is wrong, or a (step, branch) does not sum to the tokens.
        """
        self._put(slot, self._writable, energies, tokens)

    def energy(self, site: str, complete: bool = False) -> xr.DataArray:
        """A site's energies (prompt, step, branch, neuron) f4, lazily, one dask chunk a prompt, with all coordinates.

        Of a site that sees the same at every step they are repeated; of one with a source they are the source's.
        `complete` says that the caller knows it to be: it spares a look at every prompt's mark. Raises ValueError if a
        prompt is pending or the site unknown; computing it raises DamagedStore, with store, site and prompt, if a chunk
        is damaged or gone.
        """
        if not complete:
            self.check_complete()
        group = zarrs.open_site(self.path, site)
        with self._reading(f"site {site} or the list of prompts and steps"):
            own = str(zarrs.attributes(group).get("source", site))
            node = zarrs.array(group if own == site else zarrs.open_site(self.path, own), "energy")
            store: Any = zarrs.open_group(self.path).store  # which raises for a missing chunk
            with xr.open_dataset(store, engine="zarr", consolidated=False, chunks=None) as root:
                coords = root.coords.to_dataset().load().coords
        remedy = "ActivationStore.reset(slot) makes it pending, then capture again"
        prompts = coords["prompt"].values.tolist()
        data = lazy_array(self.path, f"{own}/energy", node, f"site {own}", remedy, prompts)
        if data.ndim < len(DIMS):  # the same at every step
            data = dask.array.repeat(data[:, None], coords.sizes["step"], axis=1)
        return xr.DataArray(data, coords, DIMS, name="energy", attrs=node.attrs.asdict())

    def check_complete(self) -> None:
        """Raises ValueError if a prompt is pending."""
        if pending := self.pending():
            raise ValueError(
                f"{len(pending)} of {self.size()} prompts of {self.path} are not captured yet; "
                "run the capture again, it does only what is missing"
            )

    def open(self) -> xr.DataTree:
        """All of it, lazily, as anyone with xarray sees it; prompts that are pending read as NaN."""
        zarrs.open_group(self.path)
        store: Any = self.path.store()  # xarray takes a zarr store, though its types do not say so
        return xr.open_datatree(store, engine="zarr", consolidated=False, chunks={})

    def sites(self) -> list[NeuronSite]:
        """The sites, in the model's order."""
        return zarrs.read_sites(self.path)

    def attributes(self) -> dict[str, Any]:
        """The profile it was planned with."""
        return dict(zarrs.attributes(zarrs.open_group(self.path))["profile"])

    def steps_and_branches(self) -> tuple[int, list[str]]:
        """How many denoiser calls were captured, and the guidance halves."""
        with self._reading("its list of branches"):
            group = zarrs.open_group(self.path)
            return zarrs.array(group, "step").shape[0], [str(name) for name in zarrs.read_all(group, "branch")]

    def names(self) -> list[str]:
        """The name of every slot's prompt, in order: a digest of its text and seed."""
        with self._reading("its list of prompts"):
            return [str(name) for name in zarrs.read_all(zarrs.open_group(self.path), "prompt")]

    def copy(self, other: ActivationStore, slots: Mapping[int, int]) -> None:
        """Stores prompts as another store of the same profile holds them: {slot here: slot there}.

        Raises ValueError if one is another prompt there, DamagedStore if its energies are damaged.
        """
        here, there = self.names(), other.names()
        if odd := [(slot, old) for slot, old in slots.items() if here[slot] != there[old]]:
            raise ValueError(
                f"slot {odd[0][1]} of {other.path} holds another prompt than slot {odd[0][0]} of {self.path}"
            )
        source = other._arrays()
        for slot, old in slots.items():
            with other._reading(f"slot {old}"):
                read = at_once(partial(_slot, source, old), source)
            energies: dict[str, NDArray[np.float32]] = dict(zip(source, read, strict=True))
            tokens = {name: energy.sum(-1, dtype=np.float64).round() for name, energy in energies.items()}
            self._put(slot, self._writable, energies, tokens)

    @cached_property
    def _writable(self) -> dict[str, zarr.Array[Any]]:
        """Every site's energies, for writing: their metadata never changes, and a batch of prompts needs it once."""
        return self._arrays(writable=True)

    def _arrays(self, writable: bool = False) -> dict[str, zarr.Array[Any]]:
        """The energies of every site that has its own."""
        group = zarrs.open_group(self.path, writable)
        names = zarrs.attributes(group)["sites"]
        found = zip(names, at_once(lambda name: zarrs.array_of(group, name, "energy"), names), strict=True)
        return {name: array for name, array in found if array is not None}

    def _put(
        self,
        slot: int,
        arrays: Mapping[str, zarr.Array[Any]],
        energies: Mapping[str, ArrayLike],
        tokens: Mapping[str, ArrayLike],
    ) -> None:
        complete = self._marks(slot, zarrs.open_group(self.path, writable=True))
        if set(energies) != set(arrays):
            odd = sorted(set(energies) ^ set(arrays))
            raise ValueError(f"energies for {len(arrays)} sites were expected; {odd[0]} is missing or was not planned")
        sound = {name: checked(name, energies[name], arrays[name].shape[1:], tokens) for name in arrays}
        if complete[slot] == 1:
            return
        at_once(lambda name: arrays[name].__setitem__(slot, sound[name]), arrays)
        complete[slot] = 1


def captured_sets(root: RootLike, profile: str) -> list[str]:
    """The prompt sets under a profile, by one listing; an object store lists also one that is half planned."""
    return [unquote(name.removesuffix(".zarr")) for name in Root(root).path("activations", profile).folders()]


def _slot(arrays: Mapping[str, zarr.Array[Any]], slot: int, name: str) -> NDArray[np.float32]:
    return np.asarray(arrays[name][slot], np.float32)
