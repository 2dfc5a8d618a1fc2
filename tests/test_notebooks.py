"""The notebooks: committed without outputs, and every cell runs from the first to the last."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nbclient
import nbformat
import pytest

from storage.listing import latest_edit
from tests.erase_cases import ROOT, files

FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def executed(path: Path, **environment: str) -> nbformat.NotebookNode:
    """The notebook after all its cells ran in a new kernel; raises CellExecutionError at the first that fails."""
    notebook = nbformat.read(path, as_version=4)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("CONCEPTPRUNE_", "MPLBACKEND"))}
    client = nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(ROOT)}})
    return client.execute(env={**own, "OMP_NUM_THREADS": "2", **environment})


@pytest.fixture(autouse=True)
def no_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel's history and sockets stay out of the user's home."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path_factory.mktemp("jupyter")))


def pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_committed_as_source(path: Path) -> None:
    notebook = json.loads(path.read_text("utf-8"))
    for cell in notebook["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    kinds = [cell["cell_type"] for cell in notebook["cells"]]
    assert kinds[0] == "markdown"
    assert kinds.count("markdown") >= kinds.count("code") // 2  # it explains what it does
    nbformat.validate(nbformat.read(path, as_version=4))


@pytest.mark.slow
@pytest.mark.timeout(900)  # two runs, each about a minute on two idle cores
def test_the_look_at_activations_runs_on_its_own_store_and_on_a_given_one(tmp_path: Path) -> None:
    path = FOLDER / "activations.ipynb"
    notebook = executed(path, TMPDIR=str(tmp_path))
    assert pictures(notebook) >= 10
    [store] = tmp_path.glob("conceptprune-notebook-*")
    assert latest_edit(store, "fox") is not None
    catalog = str(store / "few.toml")
    before = files(store)
    again = executed(path, TMPDIR=str(tmp_path), CONCEPTPRUNE_STORE=str(store), CONCEPTPRUNE_CATALOG=catalog)
    assert pictures(again) == pictures(notebook)
    assert files(store) == before  # all that it needs is there
    assert list(tmp_path.glob("conceptprune-notebook-*")) == [store]
