"""Captures that are shared out, and the limit that they keep: they depend on no worker, and never run unlimited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows import sharing
from flows.capture_catalog import capture_catalog, share_of
from flows.catalog_plan import CatalogPlan, distinct_sets, make_catalog_plan
from flows.config import CatalogRequest
from flows.erase_catalog import erase_all, erase_catalog
from flows.steps import NoLimit, Steps
from tests.erase_cases import Case
from tests.test_flows_resume import complete


def request(case: Case, store: Path, **options: Any) -> CatalogRequest:
    paths = {name: str(getattr(case, name)) for name in ("model", "catalog", "judge")}
    return CatalogRequest(**{"store": str(store), "device": "cpu", "evaluate": False, **paths, **options})


def plan(case: Case, store: Path, **options: Any) -> CatalogPlan:
    return make_catalog_plan(request(case, store, **options))


@pytest.mark.parametrize("of", [1, 2, 3, 64])
def test_shares_are_all_of_the_sets_each_once(case: Case, tmp_path: Path, of: int) -> None:
    whole = plan(case, tmp_path)
    shares = [[prompts.digest for prompts in share_of(whole, share, of)] for share in range(of)]
    dealt = [digest for share in shares for digest in share]
    assert len(dealt) == len(set(dealt))
    assert set(dealt) == set(distinct_sets(whole.plans.values()))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_share_that_starts_late_deals_as_the_others_did(case: Case, tmp_path: Path) -> None:
    first, second = plan(case, tmp_path), plan(case, tmp_path)
    before = [{prompts.digest for prompts in share_of(first, share, 2)} for share in range(2)]
    erase_all(plan(case, tmp_path, concepts=["fox"]), Steps())
    after = [{prompts.digest for prompts in share_of(second, share, 2)} for share in range(2)]
    assert len(second.pending()) == len(first.pending()) - 1
    assert all(late <= early for early, late in zip(before, after, strict=True))
    assert sum(map(len, after)) < sum(map(len, before))


def test_without_prefect_there_are_no_workers_and_no_limit(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="workers is 2, but only Prefect has workers"):
        erase_all(plan(case, tmp_path, workers=2), Steps())
    monkeypatch.setenv("CONCEPTPRUNE_GPU_LIMIT", "gpu-capture")
    with pytest.raises(NoLimit, match="which only Prefect can keep; unset it for --no-prefect"):
        erase_all(plan(case, tmp_path), Steps())
    assert not list(tmp_path.iterdir())


def test_an_empty_limit_is_refused(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a deployment has it whose variable was not set."""
    monkeypatch.setenv("CONCEPTPRUNE_GPU_LIMIT", "")
    with pytest.raises(ValueError, match="CONCEPTPRUNE_GPU_LIMIT is ''"):
        erase_all(plan(case, tmp_path), Steps())


@pytest.mark.slow  # the server takes 10 to 25 s to start
def test_what_no_worker_takes_is_captured_here(
    case: Case, tmp_path: Path, prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName

    asked = request(case, tmp_path, concepts=["fox"], workers=2)
    with pytest.raises(ValueError, match="'capture-catalog/capture-share', is not deployed"):
        erase_catalog(asked)
    assert not complete(tmp_path)

    monkeypatch.setattr(sharing, "POLL", 0.1)
    monkeypatch.setattr(sharing, "PATIENCE", 1)
    with get_client(sync_client=True) as client:
        flow = client.create_flow(capture_catalog)
        client.create_deployment(flow, "capture-share")
        assert len(erase_catalog(asked)["rows"]) == 1
        shares = client.read_flow_runs(flow_filter=FlowFilter(name=FlowFilterName(any_=["capture-catalog"])))
    assert [len(slots) for slots in complete(tmp_path).values()] == [3, 3]
    assert [share.state.name for share in shares if share.state] == ["Cancelled", "Cancelled"]
    assert all(share.parent_task_run_id for share in shares)  # the UI shows them below the run
