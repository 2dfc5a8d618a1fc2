"""Tasks that make an edit from a ranking: mask, delta, report, manifest. No torch, no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.drafts import EditDraft
from storage.models import ModelStore
from storage.rankings import RankingStore
from tasks.diffusion.spec import Branch, NeuronSite, PruneSpec
from tasks.pruning.masks import candidates, mask
from tasks.pruning.rankings import Ranking


@dataclass(frozen=True)
class RankingKey:
    """Which ranking: of a model's weights, by the energies of a pair of prompt sets under a profile."""

    model: str
    profile: str
    reference: str
    target: str
    branch: Branch

    def open(self, root: str) -> RankingStore:
        """The store under a root."""
        return RankingStore(root, self.profile, self.reference, self.target, model=self.model, branch=self.branch)


@task(name="make-mask", task_run_name="mask-{draft.concept}-{draft.edit}", cache_policy=NO_CACHE)
def make_mask(
    draft: EditDraft, ranking: RankingKey, sites: list[NeuronSite], prune: PruneSpec
) -> dict[str, dict[str, int]]:
    """Write mask.safetensors and delta.safetensors. Returns each site's width, weights and pruned weights."""
    ranked, model = ranking.open(draft.root), ModelStore(draft.root, ranking.model)
    masks, deltas = {}, {}
    for site in sites:
        found = Ranking(*ranked.read(site.name))
        count = candidates(prune.sparsity, site.width)
        masks[site.name] = mask(found, site.width, count, prune.t_hat, prune.vote_share)
        if masks[site.name].any():
            deltas[site.name] = np.where(masks[site.name], np.float32(0), model.weight(site.name))
    draft.put_masks(masks)
    draft.put_deltas(deltas, model.dtype(sites[0].name))
    return {
        site.name: {"width": site.width, "weights": site.width * site.rows, "pruned": int(masks[site.name].sum())}
        for site in sites
    }


@task(name="seal-edit", cache_policy=NO_CACHE)
def seal_edit(draft: EditDraft, report: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """Write report.json, then the manifest. Returns the edit's folder."""
    weights = ModelStore(draft.root, draft.model).attributes()["weights"]
    draft.put_json("report.json", report)
    return str(draft.seal({**manifest, "model": {**manifest["model"], "weights": weights}}).path)
