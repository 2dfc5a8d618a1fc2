"""Tasks that turn stored activations into rankings. No torch, no model."""

from __future__ import annotations

from decimal import Decimal

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.activations import ActivationStore
from storage.models import ModelStore
from tasks.dask_client import dask_scheduler
from tasks.diffusion.spec import NeuronSite
from tasks.editing import RankingKey
from tasks.pruning.masks import candidates
from tasks.pruning.norms import role_norms
from tasks.pruning.rankings import rank_site

LEAST_DEPTH = Decimal("0.2")  # share of a row that is ranked anyway, so that other sparsities need no new ranking


@task(name="rank-concept", task_run_name="rank-{key.reference}-{key.target}", cache_policy=NO_CACHE)
def rank_concept(root: str, key: RankingKey, sites: list[NeuronSite], sparsity: Decimal) -> str:
    """Rank every site's neurons, as deep as the sparsity needs, for a pair of prompt sets.

    A stored ranking that is deep enough is kept as it is. Returns the ranking store's URL.
    """
    depths = {s.name: max(candidates(sparsity, s.width), candidates(LEAST_DEPTH, s.width), 1) for s in sites}
    ranking, weights = key.open(root), ModelStore(root, key.model)
    if not ranking.exists(depths):
        target, reference = (ActivationStore(root, key.profile, digest) for digest in (key.target, key.reference))
        ranked = {}
        with dask_scheduler():
            for site, depth in depths.items():
                norms = role_norms(target.energy(site), reference.energy(site), key.branch)
                found = rank_site(weights.weight(site), *norms, depth)
                ranked[site] = (found.neuron, found.kept)
        ranking.write_all(ranked)
    return ranking.url
