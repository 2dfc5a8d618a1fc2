"""Other edits from the store alone: no torch, no model, unless images are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect import flow

from flows.artifacts import progress_artifacts, publish_catalog
from flows.config import CatalogRequest
from flows.erase_concept import cut
from flows.steps import Steps, ended, tracked
from flows.stored import evaluated, stored_cut
from flows.tabling import CatalogOutcome, table_edits
from storage.listing import latest_edit, list_concepts
from storage.parallel import at_once
from tasks.cuts import Cut
from tasks.editing import cut_chunk
from tasks.failures import reason

CHUNK = 25  # concepts a task: seconds of work, and few enough for progress to show


@dataclass(frozen=True)
class CutPlan:
    """The edits to make, and the concepts of which none can be made."""

    request: CatalogRequest
    cuts: Mapping[str, Cut]  # by slug
    refused: Mapping[str, str]  # slug: why


@flow(name="rethreshold", flow_run_name="rethreshold-{request.sparsity}")
def rethreshold(request: CatalogRequest) -> dict[str, Any]:
    """Make other edits of concepts that were captured before. Fails at its end if a concept failed."""
    with progress_artifacts():
        outcome = cut_all(plan_cuts(request), Steps(tracked))
    publish_catalog(outcome)
    return ended(outcome.as_json(), outcome.failure())


def plan_cuts(request: CatalogRequest) -> CutPlan:
    """The edits to make; only an evaluation needs the catalog, the judge and the model.

    Raises ValueError in one sentence if none can be made.
    """
    slugs = _own(request.store) if request.concepts is None else list(dict.fromkeys(request.concepts))
    if not slugs:
        raise ValueError(f"there is no edit in {request.store}; run conceptprune erase, or catalog erase, first")

    def plan(slug: str) -> Cut | str:
        try:
            edit = stored_cut(request, slug)
            return evaluated(edit, request) if request.evaluate else edit
        except ValueError as error:
            return str(error)

    found = dict(zip(slugs, at_once(plan, slugs), strict=True))
    cuts = {slug: edit for slug, edit in found.items() if isinstance(edit, Cut)}
    refused = {slug: why for slug, why in found.items() if isinstance(why, str)}
    if not cuts:
        first = next(iter(refused.values()))
        raise ValueError(first if len(refused) == 1 else f"none of {len(refused)} concepts can be cut: {first}")
    return CutPlan(request, cuts, refused)


def _own(store: str) -> list[str]:
    """The store's concepts, without combinations of others' masks: those have no ranking of their own."""
    slugs = list_concepts(store)
    edits = at_once(lambda slug: latest_edit(store, slug), slugs)
    return [slug for slug, edit in zip(slugs, edits, strict=True) if edit and "combined" not in edit.manifest["prune"]]


def cut_all(plan: CutPlan, steps: Steps) -> CatalogOutcome:
    """The flow's body. An edit that is there already is made the latest and stays as it is."""
    cuts = list(plan.cuts.values())
    there = at_once(lambda edit: edit.draft.published() is not None, cuts)
    if plan.request.evaluate:
        errors = [_cut_one(edit, plan.request.batch, steps) for edit in cuts]
    else:
        chunks = steps.in_turn("edits", cut_chunk, (), cuts, CHUNK)
        errors = [error for chunk in chunks for error in chunk]
    failed = {edit.slug: why for edit, why in zip(cuts, errors, strict=True) if why is not None}
    edits = at_once(lambda edit: edit.draft.published(), [edit for edit in cuts if edit.slug not in failed])
    rows = table_edits(plan.request.store, [edit for edit in edits if edit is not None])
    return CatalogOutcome(
        "rethreshold", plan.request.store, rows, {**plan.refused, **failed}, 0, len(rows) - sum(there)
    )


def _cut_one(edit: Cut, batch: int, steps: Steps) -> str | None:
    """One edit with its evaluation. Returns what went wrong, in a sentence."""
    try:
        if edit.draft.sealed() is None:
            cut(edit, batch, Steps(steps.call))
    except Exception as error:
        return reason(error, edit.slug)
    return None
