"""Tasks that turn stored activations into rankings. No torch, no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import dask
from dask.base import compute as dask_compute
from dask.delayed import delayed
from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.activations import ActivationStore
from storage.models import ModelStore
from tasks.cuts import RankingKey
from tasks.dask_client import dask_scheduler
from tasks.diffusion.slots import slots_of
from tasks.diffusion.spec import NeuronSite
from tasks.pruning.masks import candidates
from tasks.pruning.norms import role_norms
from tasks.pruning.rankings import rank_site

LEAST_DEPTH = Decimal("0.2")  # share of a row that is ranked anyway, so that other sparsities need no new ranking

compute: Callable[..., tuple[Any, ...]] = dask_compute  # Dask leaves its type open


@task(name="rank-concept", task_run_name="rank-{key.reference}-{key.target}", cache_policy=NO_CACHE)
def rank_concept(root: str, key: RankingKey, sites: list[NeuronSite], sparsity: Decimal) -> str:
    """Rank every site's neurons, as deep as the sparsity needs, for a pair of prompt sets.

    A stored ranking that is deep enough is kept as it is. Returns the ranking store's URL.
    """
    with dask_scheduler():
        return rank(root, key, sites, sparsity)


def rank(root: str, key: RankingKey, sites: Sequence[NeuronSite], sparsity: Decimal) -> str:
    """What `rank_concept` does, a site at a time on Dask's current scheduler, the largest first.

    Whoever works on a site, a thread or another machine, reads its energies and writes its ranking: only names travel.
    """
    store = key.open(root)
    depths = {site: max(candidates(sparsity, site.width), candidates(LEAST_DEPTH, site.width), 1) for site in sites}
    there = store.depths()
    missing = [site for site, depth in depths.items() if there.get(site.name, 0) < depth]
    missing.sort(key=lambda site: -site.width * site.rows)
    for digest in (key.target, key.reference) if missing else ():
        ActivationStore(root, key.profile, digest).check_complete()
    compute(*(delayed(_rank_site, pure=False)(root, key, site, depths[site]) for site in missing))
    return store.url


def _rank_site(root: str, key: RankingKey, site: NeuronSite, depth: int) -> None:
    """Rank one site and store it; energies load, and rows are ranked, on the threads of this process."""
    stores = [ActivationStore(root, key.profile, digest) for digest in (key.target, key.reference)]
    energies = [store.energy(site.name, complete=True) for store in stores]
    if key.prompts is not None:
        energies = [energy.isel(prompt=slots_of(key.prompts, energy.sizes["prompt"])) for energy in energies]
    if site.once:  # every step votes alike: one is ranked
        energies = [energy.isel(step=[0]) for energy in energies]
    with dask.config.set(scheduler="threads"):
        target, reference = role_norms(energies[0], energies[1], key.branch)
        found = rank_site(ModelStore(root, key.model).weight(site.name)[:, site.start :], target, reference, depth)
    key.open(root).write(site.name, found.neuron, found.kept, site.once)
