"""The commands that run a flow: say the cost, run it with or without Prefect, show progress."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

# Prefect reads these when it is imported. Its ephemeral server takes 10 to 25 s to start, more in a new home; its own
# telemetry would lock the new database meanwhile, and its notices would run through the progress bars.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")

from flows import erase_concept as erase_flow
from flows import rethreshold as rethreshold_flow
from flows.config import Request
from flows.outcome import Outcome
from flows.plan import make_plan
from flows.showing import err, progress_bars
from flows.steps import Steps, progress
from storage.edits import read_edit_at


def erase(request: Request, no_prefect: bool) -> Outcome:
    """Erase a concept. Raises ValueError for bad input, before a model or a server starts."""
    plan = make_plan(request)
    err.print(plan.cost(), highlight=False, soft_wrap=True)
    return _run(lambda: erase_flow.erase(plan, Steps()), lambda: erase_flow.erase_concept(request), no_prefect)


def rethreshold(request: Request, no_prefect: bool) -> Outcome:
    """Make another edit from the store. Raises ValueError for bad input, before a server starts."""
    edit = rethreshold_flow.plan_cut(request)
    return _run(
        lambda: rethreshold_flow.cut_again(edit, request, Steps()),
        lambda: rethreshold_flow.rethreshold(request),
        no_prefect,
    )


def _run(body: Callable[[], Outcome], flow: Callable[[], dict[str, Any]], no_prefect: bool) -> Outcome:
    with progress_bars() as bars:
        token = progress.set(bars)
        try:
            return body() if no_prefect else Outcome.of(read_edit_at(flow()["url"]))
        finally:
            progress.reset(token)
