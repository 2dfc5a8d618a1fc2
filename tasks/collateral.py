"""What an edit takes from other concepts, before anything is drawn: from stored masks, weights and energies alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from storage.edits import Edit, latest, read_edit
from storage.listing import list_concepts
from storage.models import ModelStore
from storage.parallel import at_once
from tasks.plot_data import Source
from tasks.pruning.masks import Bools
from tasks.pruning.norms import column_norms


@dataclass(frozen=True)
class Collateral:
    """One concept, as an edit of another touches it."""

    concept: str
    edit: str  # its latest, which is compared with
    shared: float  # of the weights that its own edit prunes, the share that this one prunes too
    importance: float | None  # share of its prompts' importance, |weight| x norm, that is pruned; None: no energies
    excess: float | None  # that, less what the edit takes from its reference prompts


def collateral(store: str, edit: Edit) -> list[Collateral]:
    """The store's other concepts of the same model, what is touched most first; the edit's own concept is the first.

    Importance is Wanda's score summed over all weights of the sites and all steps: how much of what a concept's prompts
    feed through the sites goes through pruned weights. Raises ValueError if the edit is damaged.
    """
    masks, model = edit.masks(), edit.manifest["model"]["key"]

    def newest(slug: str) -> Edit | None:
        found = latest(store, model, slug)
        return None if found is None else read_edit(store, model, slug, found)

    others = [one for one in at_once(newest, list_concepts(store)) if one is not None and one.concept != edit.concept]
    rows = [_row(store, masks, one) for one in others]
    rows.sort(key=lambda row: (-row.shared, -(row.importance or 0), row.concept))
    return [_row(store, masks, edit), *rows]


def _row(store: str, masks: Mapping[str, Bools], other: Edit) -> Collateral:
    own = other.masks()
    both = sum(int((masks[site] & mask).sum()) for site, mask in own.items() if site in masks)
    whole = sum(int(mask.sum()) for mask in own.values())
    target, reference = _importance(Source(store, other), masks)
    excess = None if target is None or reference is None else target - reference
    return Collateral(other.concept, other.id, both / whole if whole else 0.0, target, excess)


def _importance(source: Source, masks: Mapping[str, Bools]) -> tuple[float | None, float | None]:
    """The share of a concept's target's importance, and of its reference's, that the masks prune."""
    if "combined" in source.prune or not source.captured():
        return None, None
    sums = np.zeros((2, 2))  # [role, (pruned, all)]
    models = ModelStore(source.store, source.key.model)
    for site in source.sites:
        weight = np.abs(models.weight(site.name)[:, site.start :]).astype(np.float64)
        mask = masks.get(site.name)
        pruned = np.zeros(weight.shape, bool) if mask is None else mask[:, site.start :]
        for role, energy in enumerate(source.energies(site.name)):
            norm = column_norms(energy, source.key.branch, mean=True).astype(np.float64).sum(0)  # over steps
            sums[role] += (weight * pruned).sum(0) @ norm, weight.sum(0) @ norm
    shares = sums[:, 0] / np.where(sums[:, 1] > 0, sums[:, 1], 1)
    return float(shares[0]), float(shares[1])
