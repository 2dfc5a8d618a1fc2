"""What plots of a concept are drawn from, and where they go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any

import xarray as xr

from storage.activations import ActivationStore
from storage.edits import Edit
from storage.models import ModelStore
from storage.roots import place_at
from tasks.cuts import RankingKey
from tasks.diffusion.slots import slots_of
from tasks.diffusion.spec import NeuronSite, PruneSpec
from tasks.pruning.masks import candidates
from tasks.pruning.rankings import Ranking


@dataclass
class Plots:
    """What was drawn where, and what was left out and why."""

    folder: str
    paths: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def put(self, name: str, data: bytes) -> None:
        """Write one chart. Raises ValueError if the folder cannot be written."""
        place = place_at(self.folder) / name
        try:
            place.put(data)
        except OSError as error:
            why = error.strerror or error
            raise ValueError(f"plots cannot be written to {self.folder}: {why}; give a directory of yours") from error
        self.paths[name.removesuffix(".png")] = str(place)

    def as_json(self) -> dict[str, Any]:
        """The command line's JSON values."""
        return {"plots": dict(self.paths), "notes": list(self.notes)}


@dataclass(frozen=True)
class Source:
    """An edit with the energies and the ranking that it was cut from."""

    store: str
    edit: Edit

    @property
    def prune(self) -> Mapping[str, Any]:
        """The manifest's settings."""
        settings: Mapping[str, Any] = self.edit.manifest["prune"]
        return settings

    @property
    def sparsity(self) -> Decimal:
        """The edit's k."""
        return Decimal(self.prune["sparsity"])

    @cached_property
    def key(self) -> RankingKey:
        """The ranking's key."""
        manifest, sets = self.edit.manifest, self.edit.manifest["prompt_sets"]
        return RankingKey(manifest["model"]["key"], manifest["profile"], sets["reference"], sets["target"],
                          self.prune["branch"], self.prune.get("prompts"))  # fmt: skip

    @cached_property
    def sites(self) -> list[NeuronSite]:
        """The sites that the edit prunes."""
        known = ModelStore(self.store, self.edit.manifest["model"]["key"]).sites()
        if "combined" in self.prune:
            return known
        return list(PruneSpec.from_json(self.prune).chosen(known))

    def captured(self) -> bool:
        """Whether the energies of both roles are in the store."""
        sets = (self.key.target, self.key.reference)
        return all(ActivationStore(self.store, self.key.profile, digest).exists() for digest in sets)

    def energies(self, site: str) -> tuple[xr.DataArray, xr.DataArray]:
        """Those of the target and of the reference that count, (prompt, step, branch, neuron), lazily."""
        return self._energy(self.key.target, site), self._energy(self.key.reference, site)

    @cached_property
    def depths(self) -> dict[str, int]:
        """How deep each site is ranked, when first asked for."""
        return self.key.open(self.store).depths()

    def ranked(self, sparsity: Decimal) -> bool:
        """Whether every site is ranked as deep as the sparsity needs."""
        return all(self.depths.get(site.name, 0) >= candidates(sparsity, site.width) for site in self.sites)

    def ranking(self, site: NeuronSite, count: int, steps: int | None = None) -> Ranking:
        """The site's ranking, `count` deep, of all steps or the first. Raises ValueError if there is none."""
        neuron, kept = self.key.open(self.store).read(site.name, steps, self.depths)
        return Ranking(neuron[:, :, :count], kept[:, :, :count])

    def _energy(self, prompt_set: str, site: str) -> xr.DataArray:
        energy = ActivationStore(self.store, self.key.profile, prompt_set).energy(site)
        if self.key.prompts is None:
            return energy
        return energy.isel(prompt=slots_of(self.key.prompts, energy.sizes["prompt"]))
