"""A capture that is shared out: runs of the deployment for shares, on whatever workers serve its pool, and the wait."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import UUID

from flows.config import CatalogRequest, Settings
from flows.steps import Steps, tracked

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

POLL = 2  # s between two looks at the shares
PATIENCE = 600  # s without any share that runs: then there is no worker, or this run itself takes its place


def share_out(request: CatalogRequest, steps: Steps) -> None:
    """Have `request.workers` runs capture a share of the catalog each, and wait until all have ended, in whatever way.

    Nothing depends on them: what they leave undone, because they failed or no worker took them, is the caller's.
    Raises ValueError if there is no such deployment, or no Prefect.
    """
    if steps.call is not tracked:
        raise ValueError(f"workers is {request.workers}, but only Prefect has workers; leave --no-prefect out, or them")
    from prefect.client.orchestration import get_client
    from prefect.deployments import run_deployment
    from prefect.exceptions import ObjectNotFound

    name, shares = Settings.read().capture_deployment, range(request.workers)
    alone = request.model_copy(update={"workers": 0}).model_dump(mode="json")
    started: list[UUID] = []
    with get_client(sync_client=True) as client:
        try:
            for share in shares:
                parameters = {"request": alone, "share": share, "of": len(shares)}
                started.append(run_deployment(name, parameters=parameters, timeout=0).id)  # type: ignore[union-attr]
            _wait(client, started, steps)
        except ObjectNotFound:
            raise ValueError(
                f"workers is {request.workers}, but CONCEPTPRUNE_CAPTURE_DEPLOYMENT, {name!r}, is not deployed; "
                "run prefect deploy --all, or leave workers out"
            ) from None
        finally:  # also when this run is cancelled
            _cancel(client, started)


def _wait(client: SyncPrefectClient, started: list[UUID], steps: Steps) -> None:
    """Until all have ended, or for too long none has run."""
    last = time.monotonic()
    while open_runs := _open(client, started):
        steps.show("shares", len(started) - len(open_runs), len(started))
        if any(not run.state.is_scheduled() for run in open_runs if run.state):
            last = time.monotonic()
        elif time.monotonic() - last > PATIENCE:
            return
        time.sleep(POLL)
    steps.show("shares", len(started), len(started))


def _open(client: SyncPrefectClient, started: list[UUID]) -> list[FlowRun]:
    """The runs that have not ended."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    if not started:
        return []
    runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=started)))
    return [run for run in runs if run.state is None or not run.state.is_final()]


def _cancel(client: SyncPrefectClient, started: list[UUID]) -> None:
    from prefect.states import Cancelling

    for run in _open(client, started):
        client.set_flow_run_state(run.id, Cancelling(message="the run that shared the capture out has gone on"))
