"""A whole catalog: every distinct prompt set captured once, then each concept ranked, cut, evaluated and tabled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import flow

from flows.artifacts import progress_artifacts, publish_catalog
from flows.capturing import capture_sets, lacking
from flows.catalog_plan import CatalogPlan, distinct_sets, make_catalog_plan, published
from flows.config import CatalogRequest
from flows.erase_concept import erase, erase_concept
from flows.plan import Plan
from flows.sharing import share_out
from flows.steps import Steps, ended, tracked
from flows.tabling import CatalogOutcome, table_edits
from storage.parallel import at_once
from tasks.failures import reason


@flow(name="erase-catalog", flow_run_name="erase-catalog-{request.catalog_name}")
def erase_catalog(request: CatalogRequest) -> dict[str, Any]:
    """Erase every concept of a catalog; a rerun does what is missing. Fails at its end if a concept failed."""
    plan = make_catalog_plan(request)
    with progress_artifacts():
        outcome = erase_all(plan, Steps(tracked))
    publish_catalog(outcome)
    return ended(outcome.as_json(), outcome.failure())


def erase_all(plan: CatalogPlan, steps: Steps) -> CatalogOutcome:
    """The flow's body."""
    pending = plan.pending()
    captured, uncaptured = capture_all(plan, pending, steps)
    failed = dict(plan.refused)
    done = len(plan.plans) - len(pending)
    for number, one in enumerate(pending):
        steps.show("concepts", done + number, len(plan.plans))
        if without := [role for role, prompts in one.sets.items() if prompts.digest in uncaptured]:
            failed[one.concept.slug] = f"its {without[0]} set failed: {uncaptured[one.sets[without[0]].digest]}"
        elif why := erase_one(one, steps):
            failed[one.concept.slug] = why
    steps.show("concepts", len(plan.plans), len(plan.plans))
    made = [one for one in pending if one.concept.slug not in failed]
    new = dict(zip((one.concept.slug for one in made), at_once(published, made), strict=True))
    edits = [new.get(slug) or plan.published.get(slug) for slug in plan.plans]
    rows = table_edits(plan.request.store, [edit for edit in edits if edit is not None])
    return CatalogOutcome(plan.name, plan.request.store, rows, failed, captured, len(made))


def capture_all(plan: CatalogPlan, pending: Sequence[Plan], steps: Steps) -> tuple[int, dict[str, str]]:
    """Capture what the pending concepts need, each set once; with workers, here only what they leave.

    Returns how many sets lacked prompts, and those that failed with the reason.
    """
    if not pending:
        return 0, {}
    sets = lacking(plan.capture, distinct_sets(pending).values())
    left = sets
    if sets and plan.request.workers:
        share_out(plan.request, steps)
        left = lacking(plan.capture, sets)
    return len(sets), capture_sets(plan.capture, left, steps, plan.request.batch)


def erase_one(plan: Plan, steps: Steps) -> str | None:
    """Erase one concept, whose sets are captured. Returns what went wrong, in a sentence."""
    try:
        steps.part(erase_concept, (plan.request, False), lambda: erase(plan, Steps(), table=False))
    except Exception as error:
        return reason(error, plan.concept.slug)
    return None
