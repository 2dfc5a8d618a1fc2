"""More of the activations than energies, where it was asked for: tiers/<profile>/<prompt-set>/<tier>.zarr.

<tier> is <kind>-<digest of the sites' names and the choice of steps>. The file format, plain Zarr v3, for
`xr.open_datatree(url, engine="zarr", consolidated=False, chunks={})`, or for `storage.opening.open_tier(url)`:

    /                   attributes: schema, schema_version, kind ("pooled" or "raw"), profile (all that changes
                        activations), sites (names, in the model's order), planned (a digest of each part of the plan)
    prompt, text, seed, branch, timestep, complete    as in an activation store; `complete` is written last
    step(step)          i4, index of the denoiser call: only those that were asked for
    /<site>             attributes kind, width, rows, tokens, and grid: [rows, columns] of the tokens, which run along
                        rows, or null where they form no grid
    /<site>/mean, /<site>/absmax, /<site>/positive    of a pooled tier, over tokens: the mean, the largest absolute
                        value, the share above 0; (prompt, step, branch, neuron) f4, fill NaN, a chunk a prompt
    /<site>/activation  of a raw tier: (prompt, step, branch, token, neuron) f2, fill NaN, a chunk a (prompt, step)

Activations are raw: what the site's Linear gets, not normalised. f2 keeps 11 bits, up to 65504. Every chunk carries a
crc32c and nothing else. One planner writes all metadata, workers write whole chunks of their own prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import ArrayLike

from storage import zarrs
from storage.energies import add_coordinates
from storage.names import digest
from storage.parallel import at_once
from storage.places import SEAL
from storage.roots import Root, RootLike
from storage.tier_arrays import VARIABLES, Tokens, add_site, checked, site_attributes
from tasks.concepts.prompts import Prompt
from tasks.diffusion.spec import NeuronSite, TierSpec

SCHEMA = "conceptprune-tier"
SCHEMA_VERSION = 1


class TierStore:
    """One tier of one prompt set under one profile; nothing is touched before a method is called.

    `tier` names its sites in full, in the model's order, as TierSpec.chosen gives them.
    """

    def __init__(self, root: RootLike, profile: str, prompt_set: str, tier: TierSpec) -> None:
        self.tier = tier
        name = f"{tier.kind}-{digest([list(tier.sites), tier.steps])}"
        self.path = Root(root).path("tiers", profile, prompt_set, name, suffix=".zarr")

    @property
    def url(self) -> str:
        """What `storage.opening.open_tier`, xarray and zarr open."""
        return str(self.path)

    def exists(self) -> bool:
        """Whether it has been planned."""
        return (self.path / SEAL).exists()

    def plan(
        self,
        prompts: Sequence[Prompt],
        sites: Sequence[NeuronSite],
        tokens: Mapping[str, Tokens],
        timesteps: Sequence[float],
        branches: Sequence[str],
        attributes: Mapping[str, object],
    ) -> None:
        """Lays the store out: all metadata and coordinates, no activations. Any number of planners may race.

        `timesteps` are of every captured step: the tier takes its own. `attributes` is the profile in JSON values.
        Raises ValueError if the tier names other sites or a step that is not captured, or if a store that is there
        already was planned from anything else.
        """
        if tuple(site.name for site in sites) != self.tier.sites:
            raise ValueError(f"{self.path} is for the sites {', '.join(self.tier.sites)}; give these, in this order")
        steps = self.tier.calls(len(timesteps))
        facts = [[site.name, *site_attributes(site, tokens[site.name]).values()] for site in sites]
        own = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "kind": self.tier.kind,
            "profile": dict(attributes),
            "sites": list(self.tier.sites),
            "planned": {
                "prompts": digest([[prompt.text, prompt.seed] for prompt in prompts]),
                "sites": digest(facts),
                "timesteps": digest([[step, float(timesteps[step])] for step in steps]),
                "branches": digest(list(branches)),
                "profile": digest(dict(attributes)),
            },
            "coordinates": "text seed timestep",  # what xarray shall not take for data
        }

        def fill(group: zarr.Group) -> None:
            add_coordinates(group, prompts, [timesteps[step] for step in steps], branches, steps)
            for site in sites:
                add_site(group, self.tier.kind, site, tokens[site.name], len(prompts), len(steps), len(branches))

        if self.exists() or not zarrs.create(self.path, own, fill):
            self._check_planned(own)

    def pending(self) -> list[int]:
        """The slots, indices along prompt, that are not complete."""
        with self._reading("the marks of completeness"):
            marks = zarrs.read_all(zarrs.open_group(self.path), "complete")
        return [int(slot) for slot in np.flatnonzero(marks != 1)]

    def prompts(self) -> list[tuple[str, int]]:
        """The (text, seed) of every slot, in order."""
        with self._reading("its list of prompts"):
            group = zarrs.open_group(self.path)
            texts, seeds = zarrs.read_all(group, "text"), zarrs.read_all(group, "seed")
        return [(str(text), int(seed)) for text, seed in zip(texts, seeds, strict=True)]

    def steps(self) -> list[int]:
        """The denoiser calls that it keeps."""
        with self._reading("its list of steps"):
            return [int(step) for step in zarrs.read_all(zarrs.open_group(self.path), "step")]

    def write(self, slot: int, values: Mapping[str, Mapping[str, ArrayLike]]) -> None:
        """Stores one prompt: {site: {variable: array [step, branch, ...]}}; its mark of completeness last.

        A slot that is complete keeps what it has. Raises ValueError, before anything is written, if a site or variable
        is missing or unknown, a shape is wrong, or a value is not finite in the tier's dtype (f2: 65504 at most).
        """
        group = zarrs.open_group(self.path, writable=True)
        complete = zarrs.array(group, "complete")
        if not 0 <= slot < complete.shape[0]:
            raise ValueError(f"slot {slot} is not one of the {complete.shape[0]} prompts planned in {self.path}")
        if set(values) != set(self.tier.sites):
            odd = sorted(set(values) ^ set(self.tier.sites))
            raise ValueError(f"{self.path} keeps {len(self.tier.sites)} sites; {odd[0]} is missing or was not planned")
        names = [(site, variable.name) for site in self.tier.sites for variable in VARIABLES[self.tier.kind]]
        arrays = [zarrs.array(group, "/".join(name)) for name in names]
        steps = self.steps()
        sound = [
            checked("/".join(name), values[name[0]].get(name[1]), array, steps)
            for name, array in zip(names, arrays, strict=True)
        ]
        if complete[slot] == 1:
            return

        at_once(lambda pair: pair[0].__setitem__(slot, pair[1]), zip(arrays, sound, strict=True))
        complete[slot] = 1

    def reset(self, slot: int) -> None:
        """Makes one prompt pending again: what to do about a damaged one."""
        marks = zarrs.array(zarrs.open_group(self.path, writable=True), "complete")
        marks.with_config({"write_empty_chunks": True})[slot] = 0  # else 0 would be written as no chunk at all

    def _reading(self, what: str) -> Any:
        return zarrs.reading(f"{self.path}: {what}", "delete the store and observe again")

    def _check_planned(self, own: Mapping[str, Any]) -> None:
        there = zarrs.attributes(zarrs.open_group(self.path))
        if (there.get("schema"), there.get("schema_version")) != (SCHEMA, SCHEMA_VERSION):
            raise ValueError(
                f"{self.path} is not of schema {SCHEMA} {SCHEMA_VERSION}; delete it or choose another root"
            )
        if differ := [part for part, value in own["planned"].items() if there["planned"].get(part) != value]:
            raise ValueError(f"{self.path} was planned with other {' and '.join(differ)}; delete it and observe again")
