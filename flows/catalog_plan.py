"""What a run over a catalog will do: every prompt set and every edit, before anything loads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flows.capturing import seconds_a_prompt
from flows.config import CatalogRequest
from flows.plan import Capture, Plan, duration, plan_capture, plan_concept
from storage.edits import CorruptEdit, Edit
from storage.parallel import at_once
from tasks.catalogs import load_catalog
from tasks.concepts.catalog import Catalog
from tasks.concepts.concept import Concept
from tasks.concepts.prompts import Prompt, PromptSet


@dataclass(frozen=True)
class CatalogPlan:
    """A run over a catalog: one capture, a plan for each concept, and those that cannot be planned."""

    request: CatalogRequest
    name: str
    capture: Capture
    plans: Mapping[str, Plan]  # by slug
    refused: Mapping[str, str]  # slug: why

    @cached_property
    def published(self) -> Mapping[str, Edit]:
        """The edits that were there when this was first asked, by slug."""
        found = at_once(published, self.plans.values())
        return {slug: edit for slug, edit in zip(self.plans, found, strict=True) if edit is not None}

    def pending(self) -> list[Plan]:
        """The plans whose edit is not published yet."""
        return [plan for slug, plan in self.plans.items() if slug not in self.published]

    def cost(self) -> CatalogCost:
        """What a run would capture, reuse, store and cost."""
        pending = self.pending()
        needed = distinct_sets(pending)
        missing = dict(zip(needed, at_once(self.capture.missing, needed.values()), strict=True))
        judged = [plan.cut.evaluation for plan in pending]
        lacking: set[Prompt] = {prompt for key in needed if missing[key] for prompt in needed[key].prompts}
        count, rate = min(sum(missing.values()), len(lacking)), seconds_a_prompt(self.capture)
        return CatalogCost(
            concepts=len(self.plans),
            pending=len(pending),
            refused=dict(self.refused),
            sets=len(distinct_sets(self.plans.values())),
            roles=2 * len(self.plans),
            captures=sum(1 for count in missing.values() if count),
            prompts=sum(map(len, needed.values())),
            missing=count,
            bytes=sum(missing.values()) * self.capture.prompt_bytes,
            seconds=None if rate is None else round(rate * count, 1),
            images=sum(2 * part.size() for asked in judged if asked for part in asked.parts),
        )


@dataclass(frozen=True)
class CatalogCost:
    """A run's cost before it runs."""

    concepts: int  # that can be planned
    pending: int  # of them, without an edit yet
    refused: Mapping[str, str]  # slug: why it cannot be planned
    sets: int  # distinct prompt sets of all concepts
    roles: int  # two for each concept: what would be captured if nothing were shared
    captures: int  # sets that lack prompts
    prompts: int  # of the sets that pending concepts need
    missing: int  # different prompts to run the model on, at most
    bytes: int  # of energies to be stored
    images: int  # to be drawn for evaluations, before and after
    seconds: float | None  # that the capture takes at the speed of earlier ones; None if there were none

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"concepts: {self.concepts}, of which {self.concepts - self.pending} are done already",
            f"prompt sets: {self.sets} distinct for {self.roles} roles; {self.captures} to capture",
            f"prompts: {self.missing} to run the model on{self._time()}; {self.prompts - self.missing} there or shared",
            f"energies: {self.bytes / 1e6:.1f} MB to store",
            f"evaluation: {self.images} images to draw" if self.images else "evaluation: none",
        ]

    def _time(self) -> str:
        return f" (about {duration(self.seconds)}, as earlier captures took)" if self.seconds else ""

    def as_json(self) -> dict[str, Any]:
        """The command line's JSON document."""
        return {**vars(self), "refused": dict(self.refused)}


def make_catalog_plan(request: CatalogRequest) -> CatalogPlan:
    """Resolve and check a request for a catalog without loading a model.

    A concept that cannot be planned is named, and leaves the others alone. Raises ValueError for what no concept can
    do without: the catalog, the model, the store, the judge.
    """
    catalog = load_catalog(request.catalog_url)
    chosen = _chosen(catalog, request)
    capture = plan_capture(request, catalog)
    plans, refused = {}, {}
    for concept in chosen:
        try:
            plans[concept.slug] = plan_concept(request.one(concept.slug), catalog, concept, capture)
        except ValueError as error:
            refused[concept.slug] = str(error)
    if not plans:
        raise ValueError(f"none of {len(chosen)} concepts can be run; {chosen[0].slug}: {refused[chosen[0].slug]}")
    return CatalogPlan(request, catalog.name, capture, plans, refused)


def published(plan: Plan) -> Edit | None:
    """A plan's edit, if it is published and nothing of it is missing; one that is damaged, its own run will name."""
    try:
        return plan.cut.draft.published()
    except CorruptEdit:
        return None


def distinct_sets(plans: Iterable[Plan]) -> dict[str, PromptSet]:
    """Every prompt set that the plans need, once, by its digest."""
    return {prompts.digest: prompts for plan in plans for prompts in plan.sets.values()}


def _chosen(catalog: Catalog, request: CatalogRequest) -> list[Concept]:
    if request.concepts is None:
        return list(catalog)
    return [catalog[slug] for slug in dict.fromkeys(request.concepts)]
