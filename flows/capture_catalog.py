"""A share of a catalog's capture, for one of several workers: every of-th distinct prompt set."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.artifacts import progress_artifacts
from flows.capturing import capture_sets, lacking
from flows.catalog_plan import CatalogPlan, distinct_sets, make_catalog_plan
from flows.config import CatalogRequest
from flows.steps import Steps, tracked
from tasks.concepts.prompts import PromptSet

Share = Annotated[int, Field(ge=0, lt=64)]
Of = Annotated[int, Field(ge=1, le=64)]


@flow(name="capture-catalog", flow_run_name="capture-{share}-of-{of}")
def capture_catalog(request: CatalogRequest, share: Share = 0, of: Of = 1) -> dict[str, Any]:
    """Capture one share of a catalog's prompt sets, those that unfinished concepts need. Edits are not made.

    Args:
        request: The catalog, and how it is captured.
        share: Which share to capture, from 0.
        of: How many shares there are.
    """
    if share >= of:
        raise ValueError(f"share is {share}, but there are {of} shares, from 0 on; give a smaller one")
    plan = make_catalog_plan(request)
    sets = lacking(plan.capture, share_of(plan, share, of))
    with progress_artifacts():
        failed = capture_sets(plan.capture, sets, Steps(tracked), request.batch)
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(sets)} prompt sets failed: {'; '.join(failed.values())}")
    return {"store": request.store, "share": share, "of": of, "captured": len(sets)}


def share_of(plan: CatalogPlan, share: int, of: int) -> list[PromptSet]:
    """The sets of a share. They are dealt out of all of the catalog's, so that shares that start late agree."""
    needed = distinct_sets(plan.pending())
    dealt = list(distinct_sets(plan.plans.values()).values())[share::of]
    return [prompts for prompts in dealt if prompts.digest in needed]
