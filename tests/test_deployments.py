"""prefect.yaml on a real server with real workers: runs watched, scheduled, killed, cancelled and shared out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests import erase_cases
from tests.erase_cases import CATALOG, Case, files
from tests.prefect_server import ROOT, Server, run_id, serving, wait_until, working
from tests.test_flows_resume import complete

# A server, two workers, and a dozen processes that import torch: four minutes on two cores.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PAIRS = 10
ENOUGH = 5  # prompts captured when a run is killed or cancelled
POOLS = ("conceptprune", "conceptprune-gpu")
KINDS = {"progress", "table", "markdown"}


@pytest.fixture(scope="module")
def slow(case: Case) -> Path:
    """A catalog with more prompts and steps, so that a run can be stopped in the middle."""
    text = CATALOG.replace("pairs = 3", f"pairs = {PAIRS}").replace("steps = 4", "steps = 24")
    text = text.replace("window = 3", "window = 24")
    path = case.folder / "slow.toml"
    path.write_text(text, "utf-8")
    return path


@pytest.fixture(scope="module")
def server(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server with everything of prefect.yaml deployed, and a worker for each pool."""
    folder = tmp_path_factory.mktemp("prefect")
    places = {"HOME": ROOT, "STORE": folder / "store", "CATALOG": case.catalog, "CATALOG_ROOTS": case.folder,
              "MODEL": case.model, "JUDGE": case.judge, "GPUS": 4}  # fmt: skip  # a killed run keeps its slot a while
    with serving(folder, {f"CONCEPTPRUNE_{name}": str(place) for name, place in places.items()}) as server:
        server.set_up()
        with working(server, *POOLS):
            yield server


@pytest.fixture(scope="module")
def watched(server: Server) -> str:
    """A run of one-concept as it was deployed, watched to its end."""
    code, said = server.ask("deployment", "run", "erase-concept/one-concept", "--watch")
    assert code == 0, said + server.log()
    return run_id(said)


def request(case: Case, store: Path, catalog: Path, **options: Any) -> dict[str, Any]:
    """The parameter of a run that differs from the deployed one."""
    return {"store": str(store), "catalog": str(catalog), "model": str(case.model), "judge": str(case.judge),
            "device": "cpu", "evaluate": False, **options}  # fmt: skip


def captured(store: Path) -> int:
    """How many prompts are complete."""
    return sum(map(len, complete(store).values()))


def wait_for_prompts(server: Server, run: str, store: Path) -> None:
    """Returns when some prompts are captured."""
    wait_until(lambda: captured(store) >= ENOUGH or server.state(run) == "FAILED", 240, f"{ENOUGH} prompts")
    assert server.state(run) == "RUNNING", server.log()


def chunks(store: Path) -> dict[str, tuple[str, int]]:
    """Contents and times of the energies of every complete prompt."""
    kept = complete(store)
    return {
        path: state
        for path, state in files(store).items()
        for folder, slots in kept.items()
        if f"{folder.name}/" in path and any(f"/energy/c/{slot}/" in path for slot in slots)
    }


def test_a_watched_run_ends_with_its_edit_and_its_artifacts(server: Server, watched: str, tmp_path: Path) -> None:
    edit = next(Path(server.environment["CONCEPTPRUNE_STORE"]).glob("edits/*/fox/*/manifest.json")).parent
    assert erase_cases.manifest(edit)["concept"] == "fox"
    found = {artifact["key"]: artifact for artifact in server.find("artifacts") if artifact["key"]}
    assert {artifact["type"] for artifact in found.values()} == KINDS
    assert found["capture-target"]["data"] == 100
    assert found["fox-sheet"]["data"].startswith("![before and after](data:image/png;base64,")
    assert edit.name in found["fox-edit"]["data"]


def test_runs_are_picked_up_at_their_time(server: Server, watched: str) -> None:
    """Without the model: another edit of the fox, and maintenance that verifies what is there."""
    store = server.environment["CONCEPTPRUNE_STORE"]
    later = ("--start-in", "4 seconds")
    runs = [server.run("rethreshold/rethreshold", {"store": store, "evaluate": False, "sparsity": "0.4"}, *later),
            server.run("maintain/maintenance", {"store": store, "energies": "check"}, *later)]  # fmt: skip
    for run in runs:
        ended = server.end(run)
        assert ended["state_type"] == "COMPLETED", server.log()
        assert datetime.fromisoformat(ended["start_time"]) >= datetime.fromisoformat(ended["expected_start_time"])
    assert len(list(Path(store).glob("edits/*/fox/*/manifest.json"))) == 2


def test_without_its_limit_a_run_fails(server: Server, case: Case, tmp_path: Path) -> None:
    server.limit("switched-off", 1, active=False)
    why = {
        "missing": "does not exist; prefect gcl create missing --limit 1",
        "switched-off": "is disabled; prefect gcl",
    }
    runs = {
        name: server.run(
            "erase-concept/one-concept", request(case, tmp_path, case.catalog, concept="fox"),
            "--job-variable", f'env={{"CONCEPTPRUNE_GPU_LIMIT": "{name}"}}',
        )
        for name in why
    }  # fmt: skip
    for name, run in runs.items():
        ended = server.end(run)
        assert ended["state_type"] == "FAILED"
        assert f"global concurrency limit {why[name]}" in ended["state"]["message"]
    assert not list(tmp_path.iterdir())


def test_a_killed_run_is_retried_and_does_the_rest(server: Server, case: Case, slow: Path, tmp_path: Path) -> None:
    run = server.run("erase-concept/one-concept", request(case, tmp_path, slow, concept="fox", batch=1))
    wait_for_prompts(server, run, tmp_path)
    server.kill(run)
    assert server.end(run)["state_type"] == "CRASHED"
    count, kept = captured(tmp_path), chunks(tmp_path)
    assert ENOUGH <= count < 2 * PAIRS
    assert len(kept) == 4 * count  # a chunk a site
    server.prefect("flow-run", "retry", run)
    wait_until(lambda: server.state(run) != "CRASHED", 30, "the retry")
    assert server.end(run)["state_type"] == "COMPLETED", server.log()
    after = files(tmp_path)
    assert {path: after[path] for path in kept} == kept
    assert captured(tmp_path) == 2 * PAIRS
    assert len(list(tmp_path.glob("edits/*/fox/*/manifest.json"))) == 1


def test_a_cancelled_run_is_completed_by_two_workers(server: Server, case: Case, slow: Path, tmp_path: Path) -> None:
    asked = request(case, tmp_path, slow, concepts=["fox", "apple"])
    run = server.run("erase-catalog/nightly-catalog", {**asked, "batch": 1})
    wait_for_prompts(server, run, tmp_path)
    server.prefect("flow-run", "cancel", run)
    assert server.end(run)["state_type"] == "CANCELLED", server.log()
    count, kept = captured(tmp_path), chunks(tmp_path)
    assert count < 4 * PAIRS

    run = server.run("erase-catalog/nightly-catalog", {**asked, "workers": 2})
    assert server.end(run)["state_type"] == "COMPLETED", server.log()
    after = files(tmp_path)
    assert {path: after[path] for path in kept} == kept
    assert captured(tmp_path) == 4 * PAIRS
    assert len(list(tmp_path.glob("edits/*/*/*/manifest.json"))) == 2
    shares = server.find("flow_runs", flows={"name": {"any_": ["capture-catalog"]}})
    assert {share["name"] for share in shares} == {"capture-0-of-2", "capture-1-of-2"}
    assert {share["state_type"] for share in shares} == {"COMPLETED"}
    own = server.find("task_runs", flow_runs={"id": {"any_": [run]}})
    assert not [task for task in own if task["name"].startswith("capture-batch")]  # the shares left nothing
