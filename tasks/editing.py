"""Tasks that make edits from rankings: mask, delta, report, manifest. No torch, no model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import dask
import numpy as np
from dask.delayed import delayed
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.models import ModelStore
from tasks.cuts import Cut
from tasks.dask_client import dask_scheduler
from tasks.failures import reason
from tasks.pruning.masks import candidates, mask
from tasks.pruning.rankings import Ranking
from tasks.ranking import compute, rank

Densities = dict[str, dict[str, int]]  # {site: {"width", "weights", "pruned"}}


@task(name="make-mask", task_run_name="mask-{cut.slug}-{cut.draft.edit}", cache_policy=NO_CACHE)
def make_mask(cut: Cut) -> Densities:
    """Write mask.safetensors and delta.safetensors. Returns each site's width, weights and pruned weights."""
    return write_mask(cut)


@task(name="seal-edit", task_run_name="seal-{cut.slug}-{cut.draft.edit}", cache_policy=NO_CACHE)
def seal_edit(
    cut: Cut, densities: Densities, evaluation: Mapping[str, Any] | None, seconds: Mapping[str, float]
) -> str:
    """Write report.json, then the manifest. Returns the edit's folder."""
    return seal(cut, densities, evaluation, seconds)


@task(name="cut-chunk", cache_policy=NO_CACHE, retries=1)
def cut_chunk(cuts: list[Cut]) -> list[str | None]:
    """Make many edits from stored energies, spread by Dask over threads or a cluster.

    Returns for each what went wrong, in a sentence, or None: one that fails leaves the others alone.
    """
    with dask_scheduler():
        found = compute(*(delayed(_cut_alone, pure=False)(cut) for cut in cuts))
    return list(found)


def write_mask(cut: Cut) -> Densities:
    """What `make_mask` does."""
    ranked = cut.ranking.open(cut.store)
    masks, depths = {}, ranked.depths()
    for site in cut.sites:
        count = candidates(cut.prune.sparsity, site.width)
        found = Ranking(*ranked.read(site.name, cut.prune.t_hat, depths))
        neurons = mask(found, site.width, count, cut.prune.t_hat, cut.prune.vote_share)
        masks[site.name] = np.pad(neurons, ((0, 0), (site.start, 0)))  # of all inputs: False before the neurons
    changed = {site.name: (site.rows, site.inputs) for site in cut.sites if masks[site.name].any()}
    cut.draft.put_masks(masks)
    cut.draft.put_deltas(
        changed,
        lambda name: np.where(masks[name], np.float32(0), _weight(cut.store, cut.ranking.model, name)),
        ModelStore(cut.store, cut.ranking.model).dtype(cut.sites[0].name),
    )
    return {
        site.name: {"width": site.width, "weights": site.width * site.rows, "pruned": int(masks[site.name].sum())}
        for site in cut.sites
    }


def seal(cut: Cut, densities: Densities, evaluation: Mapping[str, Any] | None, seconds: Mapping[str, float]) -> str:
    """What `seal_edit` does."""
    draft, manifest = cut.draft, cut.manifest()
    weights = ModelStore(draft.root, draft.model).attributes()["weights"]
    draft.put_json("report.json", cut.report(densities, evaluation, seconds))
    return str(draft.seal({**manifest, "model": {**manifest["model"], "weights": weights}}).path)


@lru_cache(maxsize=32)
def _weight(root: str, model: str, site: str) -> NDArray[np.float32]:
    """A site's weight; the model's key has its fingerprint, so it never changes. A chunk of cuts reads it once."""
    return ModelStore(root, model).weight(site)


def _cut_alone(cut: Cut) -> str | None:
    """One edit of a chunk, on the thread or machine that it is called on: the chunk keeps every core busy."""
    try:
        if not cut.draft.published():
            with dask.config.set(scheduler="synchronous"):
                rank(cut.store, cut.ranking, cut.sites, cut.prune.sparsity)
            seal(cut, write_mask(cut), None, {})
        cut.draft.point()
    except Exception as error:
        return reason(error, cut.slug)
    return None
