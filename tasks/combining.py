"""Tasks that make one edit of several: union and protection of their masks, delta, report. No torch, no model."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE

from storage import tensors
from storage.drafts import EditDraft
from storage.edits import MASK, read_edit
from storage.masks import unpack_masks
from storage.models import ModelStore
from storage.names import digest
from tasks.cuts import PACKAGES
from tasks.pruning.combining import Overlap, combine, overlaps
from tasks.pruning.masks import Bools


@dataclass(frozen=True)
class Combination:
    """One edit to be made of finished ones: all that decides its files."""

    store: str
    model: Mapping[str, Any]  # the manifest's model, the same in every part
    profile: str  # the one that all parts were captured under, or empty if they differ
    slug: str  # the new edit's concept
    erase: Mapping[str, str]  # slug: edit, of what is erased
    protect: Mapping[str, str]  # slug: edit, of what keeps its weights

    @property
    def draft(self) -> EditDraft:
        """The edit's address: its digest covers its parts, in no order. A part's own covers all that made it."""
        return EditDraft(self.store, self.model["key"], self.slug, digest(self._parts()))

    def manifest(self) -> dict[str, Any]:
        """The manifest's own fields; the store adds the format, files and time.

        It rests on edits and not on prompt sets, so `prompt_sets` is empty: those are in the manifests of its parts.
        """
        return {
            "model": dict(self.model),
            "profile": self.profile,
            "prune": self._parts(),
            "prompt_sets": {},
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        }

    def _parts(self) -> dict[str, Any]:
        return {"combined": {"erase": dict(self.erase), "protect": dict(self.protect)}}


@task(name="combine-masks", task_run_name="combine-{combination.slug}", cache_policy=NO_CACHE)
def combine_masks(combination: Combination) -> dict[str, Any]:
    """Write mask.safetensors and delta.safetensors. Returns the report's "sites" and "overlaps".

    Raises CorruptEdit if a part is damaged, ValueError if parts differ in sites or nothing is left to erase.
    """
    draft, model = combination.draft, ModelStore(combination.store, combination.model["key"])
    parts = {slug: _packed(combination, slug, edit)
             for role in (combination.erase, combination.protect) for slug, edit in role.items()}  # fmt: skip
    names = _sites(parts)
    masks: dict[str, Bools] = {}
    spared: dict[str, Overlap] = {}
    for name in names:
        erased, kept = ({slug: _mask(parts[slug], name) for slug in role}
                        for role in (combination.erase, combination.protect))  # fmt: skip
        masks[name] = combine(erased, kept)
        for slug, overlap in overlaps(erased, kept).items():
            spared[slug] = spared[slug] + overlap if slug in spared else overlap
    if not any(mask.any() for mask in masks.values()):
        raise ValueError(
            f"nothing is left to erase: {', '.join(combination.protect) or 'no one'} protects every weight of "
            f"{', '.join(combination.erase)}; protect fewer concepts, or give them a smaller sparsity"
        )
    draft.put_masks(masks)
    draft.put_deltas(
        {name: mask.shape for name, mask in masks.items() if mask.any()},
        lambda name: np.where(masks[name], np.float32(0), model.weight(name)),
        model.dtype(names[0]),
    )
    return {
        "sites": {name: {"width": mask.shape[1], "weights": mask.size, "pruned": int(mask.sum())}
                  for name, mask in masks.items()},
        "overlaps": {slug: asdict(overlap) for slug, overlap in spared.items()},
    }  # fmt: skip


@task(name="seal-combined", task_run_name="seal-{combination.slug}", cache_policy=NO_CACHE)
def seal_combined(combination: Combination, found: Mapping[str, Any], seconds: Mapping[str, float]) -> str:
    """Write report.json, then the manifest. Returns the edit's folder."""
    draft = combination.draft
    machine = {"processor": platform.machine(), "system": platform.system()}
    report = {**found, "evaluation": None, "seconds": dict(seconds), "bytes": draft.sizes(), "machine": machine}
    draft.put_json("report.json", report)
    return str(draft.seal(combination.manifest()).path)


Packed = tuple[dict[str, Any], dict[str, str]]  # {site: bits} and the widths: an eighth of what the masks take


def _packed(combination: Combination, slug: str, edit: str) -> Packed:
    """A part's mask.safetensors, verified."""
    return tensors.decode(read_edit(combination.store, combination.model["key"], slug, edit).read(MASK))


def _mask(packed: Packed, site: str) -> Bools:
    return unpack_masks({site: packed[0][site]}, packed[1])[site]


def _sites(parts: Mapping[str, Packed]) -> list[str]:
    """The sites of every part, in the first's order. Raises ValueError if another part has others."""
    first = next(iter(parts))
    for slug, (bits, _) in parts.items():
        if odd := sorted(bits.keys() ^ parts[first][0].keys()):
            raise ValueError(f"{slug} and {first} prune different sites, such as {odd[0]}; combine edits of the same")
    return list(parts[first][0])
