"""Two runs of one catalog at the same time: every prompt captured, nothing damaged, none computed more than twice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from storage import upkeep
from storage.listing import edit_places
from tests import erase_cases
from tests.erase_cases import ROOT
from tests.test_flows_resume import complete

# The command line, with a line in a file for each prompt that the model was run on: what is copied is not written so.
LOGGED = """
import sys
from flows import cli
from storage.activations import ActivationStore

path, write = sys.argv.pop(1), ActivationStore.write

def logged(store, slot, *args):
    with open(path, "a") as log:
        log.write(store.names()[slot] + "\\n")
    write(store, slot, *args)

ActivationStore.write = logged
cli.main()
"""


@pytest.mark.slow  # two processes that import torch, one more catalog
@pytest.mark.timeout(600)
def test_two_runs_of_a_catalog_at_once(tmp_path: Path) -> None:
    case, store = erase_cases.build(tmp_path), tmp_path / "store"
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    words = ["catalog", "erase", str(case.catalog), "--store", str(store), "--model", str(case.model),
             "--judge", str(case.judge), "--device", "cpu", "--batch", "1", "--no-prefect"]  # fmt: skip
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", LOGGED, str(log), *words], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for log in logs
    ]  # fmt: skip
    try:
        for run in runs:
            said = run.communicate(timeout=500)[0]
            assert run.returncode == 0, said
    finally:
        for run in runs:
            run.kill()

    for folder, slots in complete(store).items():
        assert len(slots) == len(list((folder / "complete" / "c").iterdir())), folder
    computed = [log.read_text("utf-8").split() for log in logs]
    assert all(count == 1 for one in computed for count in Counter(one).values())  # no run computes a prompt again
    assert computed[0]  # both had something to do, or this test shows nothing
    assert computed[1]
    edits = list(store.glob("edits/*/*/*/manifest.json"))
    assert sorted(erase_cases.manifest(edit.parent)["concept"] for edit in edits) == ["apple", "fox", "photo", "rose"]
    places = edit_places(store)
    assert len(places) == 8  # an edit and a pointer each
    assert [upkeep.damage(store, *place) for place in places] == [None] * 8
    assert not any(upkeep.damaged_slots(found) for found in upkeep.activation_stores(store))
    assert not [path for path in store.rglob("*") if path.suffix in (".tmp", ".partial")]
