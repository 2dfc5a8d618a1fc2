"""Another sparsity, window or vote share from the store alone: no torch, no model, unless images are asked for."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.artifacts import publish
from flows.config import Request
from flows.erase_concept import cut
from flows.outcome import Outcome
from flows.plan import Cut, evaluated, stored_cut
from flows.steps import Steps, tracked


@flow(name="rethreshold", flow_run_name="rethreshold-{request.concept}")
def rethreshold(request: Request) -> dict[str, Any]:
    """Make another edit of a concept that was captured before; returns its URL and report."""
    outcome = cut_again(plan_cut(request), request, Steps(tracked))
    publish(outcome)
    return outcome.as_json()


def plan_cut(request: Request) -> Cut:
    """The edit to make; only an evaluation needs the catalog, the judge and the model.

    Raises ValueError in one sentence.
    """
    edit = stored_cut(request)
    return evaluated(edit, request) if request.evaluate else edit


def cut_again(edit: Cut, request: Request, steps: Steps) -> Outcome:
    """The flow's body. An edit that is there already is verified, made the latest and returned as it is."""
    sealed = edit.draft.sealed()
    return Outcome.of(sealed) if sealed else cut(edit, request, steps)
