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

import zarr
from numpy.typing import ArrayLike

from storage import zarrs
from storage.energies import add_coordinates
from storage.names import digest
from storage.parallel import at_once
from storage.prompt_stores import PromptStore
from storage.roots import Root, RootLike
from storage.tier_arrays import VARIABLES, Tokens, add_site, checked, site_attributes
from tasks.concepts.prompts import Prompt
from tasks.diffusion.spec import NeuronSite, TierSpec


class TierStore(PromptStore):
    """One tier of one prompt set under one profile; nothing is touched before a method is called.

    `tier` names its sites in full, in the model's order, as TierSpec.chosen gives them.
    """

    schema = "conceptprune-tier"
    schema_version = 1
    remedy = "delete the store and observe again"
    otherwise = "delete it and observe again"

    def __init__(self, root: RootLike, profile: str, prompt_set: str, tier: TierSpec) -> None:
        self.tier = tier
        name = f"{tier.kind}-{digest([list(tier.sites), tier.steps])}"
        super().__init__(Root(root).path("tiers", profile, prompt_set, name, suffix=".zarr"))

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
        about = {"kind": self.tier.kind, "sites": list(self.tier.sites)}
        planned = {
            "sites": [[site.name, *site_attributes(site, tokens[site.name]).values()] for site in sites],
            "timesteps": [[step, float(timesteps[step])] for step in steps],
        }

        def fill(group: zarr.Group) -> None:
            add_coordinates(group, prompts, [timesteps[step] for step in steps], branches, steps)
            for site in sites:
                add_site(group, self.tier.kind, site, tokens[site.name], len(prompts), len(steps), len(branches))

        self._lay_out(about, attributes, prompts, branches, planned, fill)

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
        complete = self._marks(slot, group)
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
