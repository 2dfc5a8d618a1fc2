"""Tasks of a sweep: the densities of a whole grid from one ranking, and its charts. No torch, no model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import dask
import numpy as np
from dask.delayed import delayed
from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.drafts import EditDraft
from storage.roots import Root
from tasks.cuts import Cut, RankingKey
from tasks.dask_client import dask_scheduler
from tasks.diffusion.spec import NeuronSite
from tasks.pruning.masks import candidates
from tasks.pruning.rankings import Ranking
from tasks.pruning.sweeping import count_pruned


@dataclass(frozen=True)
class Grid:
    """Every combination of three lists, in this order; each list ascends and repeats nothing."""

    sparsities: tuple[Decimal, ...]
    t_hats: tuple[int, ...]
    vote_shares: tuple[float, ...]

    @classmethod
    def of(cls, sparsities: Sequence[Decimal], t_hats: Sequence[int], vote_shares: Sequence[float]) -> Grid:
        """The grid of lists in any order, with repetitions."""
        return cls(tuple(sorted(set(sparsities))), tuple(sorted(set(t_hats))), tuple(sorted(set(vote_shares))))

    def points(self) -> list[tuple[Decimal, int, float]]:
        """Its (sparsity, t_hat, vote_share)s; the last changes fastest."""
        return [(k, t_hat, share) for k in self.sparsities for t_hat in self.t_hats for share in self.vote_shares]


@task(name="count-points", task_run_name="count-{cut.slug}", cache_policy=NO_CACHE)
def count_points(cut: Cut, grid: Grid) -> list[int]:
    """How many weights of all sites each point of a grid prunes, in its order, spread by Dask over the sites.

    Of the cut its ranking and sites count; the ranking must be there, as deep as the largest sparsity needs.
    """
    depths = cut.ranking.open(cut.store).depths()
    with dask_scheduler():
        count = delayed(_count_site, pure=False)
        parts = dask.compute(*(count(cut.store, cut.ranking, site, depths, grid) for site in cut.sites))
    return [int(number) for number in np.sum(parts, axis=0)]


@task(name="share-images", task_run_name="share-images-{draft.edit}", cache_policy=NO_CACHE)
def share_images(source: EditDraft, draft: EditDraft) -> int:
    """Copy what was drawn before an edit from another edit of the same concept, model and evaluation prompts.

    Whoever asks for both is sure that they are: no edit changes what the untouched model draws. Returns how many
    images the draft has now.
    """
    names = [name for name in source.folder.files() if name.startswith("images/") and name.endswith("-before.png")]
    for name in names:
        if (data := source.get(name)) is not None:
            draft.put(name, data)
    return len(names)


@task(name="draw-sweep", task_run_name="draw-sweep-{concept}-{sweep}", cache_policy=NO_CACHE)
def draw_sweep(store: str, concept: str, sweep: str, points: list[dict[str, Any]], keep: float) -> dict[str, str]:
    """Draw the density map, and the trade-off where points were judged, into plots/<concept>/.

    `points` are the fields of `charts.Point`. Returns {"density", "tradeoff"}: the charts' URLs.
    """
    from tasks.metrics import charts  # matplotlib takes a second to import

    found = [charts.Point(**point) for point in points]
    drawn = {"density": charts.density_map(concept, found)}
    if any(point.erased is not None for point in found):
        drawn["tradeoff"] = charts.tradeoff(concept, found, keep)
    return {name: _keep(store, concept, f"sweep-{sweep}-{name}", data) for name, data in drawn.items()}


@task(name="draw-tradeoff", task_run_name="draw-tradeoff-{concept}", cache_policy=NO_CACHE)
def draw_tradeoff(store: str, concept: str, name: str, points: list[dict[str, Any]], keep: float) -> str:
    """Draw what judged points erase against what others keep, into plots/<concept>/. Returns the chart's URL."""
    from tasks.metrics import charts

    return _keep(store, concept, name, charts.tradeoff(concept, [charts.Point(**point) for point in points], keep))


def _keep(store: str, concept: str, name: str, png: bytes) -> str:
    place = Root(store).path("plots", concept, f"{name}.png")
    place.put(png)
    return str(place)


def _count_site(store: str, key: RankingKey, site: NeuronSite, depths: dict[str, int], grid: Grid) -> Any:
    """Pruned weights of one site at every point, int64 [point]."""
    ranking = Ranking(*key.open(store).read(site.name, max(grid.t_hats), depths))
    counts = [candidates(sparsity, site.width) for sparsity in grid.sparsities]
    return count_pruned(ranking, site.width, counts, grid.t_hats, grid.vote_shares).values.ravel()
