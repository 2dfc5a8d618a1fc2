"""Killed in the middle of a capture, a run does only what is missing, and ends where it would have ended."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from subprocess import Popen

import pytest
import zarr

from flows.erase_concept import erase
from flows.plan import make_plan
from flows.steps import Steps
from tests import erase_cases
from tests.erase_cases import CATALOG, files

PAIRS = 24
ENOUGH = 5  # prompts captured when the run is killed


def complete(store: Path) -> dict[Path, list[int]]:
    """The complete slots of every activation store, read by zarr alone."""
    found = {}
    for path in sorted(store.glob("activations/*/*.zarr")):
        marks = zarr.open_group(path, mode="r", use_consolidated=False)["complete"][...]
        found[path] = [slot for slot, mark in enumerate(marks) if mark == 1]
    return found


def kill_when(process: Popen[str], store: Path, count: int) -> None:
    """SIGKILL the process once that many prompts are complete."""
    deadline = time.monotonic() + 120
    while sum(map(len, complete(store).values())) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.communicate()


@pytest.mark.slow  # two processes that import torch
def test_a_killed_capture_goes_on_where_it_was(tmp_path: Path) -> None:
    case = erase_cases.build(tmp_path)
    case.catalog.write_text(
        CATALOG.replace("pairs = 3", f"pairs = {PAIRS}").replace("steps = 4", "steps = 20"), "utf-8"
    )
    store = tmp_path / "store"
    words = ["erase", "fox", *case.options(store), "--batch", 1, "--no-evaluate", "--no-prefect", "--device", "cpu"]
    kill_when(erase_cases.start(*words), store, ENOUGH)
    done = complete(store)
    count = sum(map(len, done.values()))
    assert ENOUGH <= count < 2 * PAIRS
    assert not list(store.glob("edits/**/manifest.json"))
    kept = {
        path: state
        for path, state in files(store).items()
        for folder, slots in done.items()
        for slot in slots
        if f"{folder.name}/" in path and f"/c/{slot}/" in path
    }
    assert len(kept) == 4 * count  # a chunk a site

    code, _, err = erase_cases.run(*words)
    assert code == 0, err
    assert f"capture: {2 * PAIRS - count} prompts " in err
    assert f"({count} of {2 * PAIRS} prompts are in the store already)" in err
    after = files(store)
    assert {path: after[path] for path in kept} == kept
    assert {len(slots) for slots in complete(store).values()} == {PAIRS}

    whole = erase(make_plan(case.request(tmp_path / "whole", batch=1, evaluate=False)), Steps())
    (mask,) = store.glob("edits/*/*/*/mask.safetensors")
    assert mask.parent.name == whole.edit
    digest = hashlib.sha256(mask.read_bytes()).hexdigest()
    assert digest == erase_cases.manifest(whole.url)["files"]["mask.safetensors"]["sha256"]


def test_an_edit_that_was_killed_before_its_manifest_is_finished(tmp_path: Path) -> None:
    case = erase_cases.build(tmp_path)
    plan = make_plan(case.request(tmp_path / "store"))
    first = Path(erase(plan, Steps()).url)
    before = files(first)
    (first / "manifest.json").unlink()
    (first / "images" / "others-001-after.png").unlink()
    assert plan.cut.draft.sealed() is None
    second = erase(plan, Steps())
    assert second.url == str(first)
    erase_cases.manifest(first)
    after = files(first)
    assert {name for name in before if after[name] != before[name]} == {"manifest.json", "images/others-001-after.png"}
    assert {name for name in before if after[name][0] != before[name][0]} <= {"manifest.json"}  # it tells the time
