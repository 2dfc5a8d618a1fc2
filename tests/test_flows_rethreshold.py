"""Another mask from the store alone: the same as erasing anew, without torch and without the model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.config import CatalogRequest, Request
from flows.erase_concept import erase
from flows.outcome import Outcome
from flows.plan import make_plan
from flows.rethreshold import cut_all, plan_cuts
from flows.steps import Steps
from storage.edits import read_edit_at
from tests import erase_cases, tiny
from tests.erase_cases import CATALOG, ROOT, Case, files


def run(request: Request) -> Outcome:
    """Erase without Prefect."""
    return erase(make_plan(request), Steps())


def again(case: Case, store: Path, **options: Any) -> Outcome:
    """Rethreshold without Prefect, from the store."""
    request = CatalogRequest.of(case.request(store, **{"evaluate": False, **options}))
    outcome = cut_all(plan_cuts(request), Steps())
    assert not outcome.failed
    return Outcome.of(read_edit_at(outcome.rows[0].url))


@pytest.fixture(scope="module")
def captured(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one edit of the fox, for copying."""
    store = tmp_path_factory.mktemp("captured")
    run(case.request(store, evaluate=False))
    return store


@pytest.fixture
def store(captured: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(captured, tmp_path / "store"))


CHANGES: list[dict[str, Any]] = [
    {"sparsity": "0.5"},  # deeper than what erase ranked
    {"sparsity": "0.04", "t_hat": 3},
    {"t_hat": 3, "vote_share": 0.5},
    {"branch": "cond", "sparsity": "10%"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_it_is_the_edit_that_erasing_anew_makes(
    case: Case, store: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    before = files(store / "activations") | files(store / "models")
    outcome = again(case, store, **change)
    assert files(store / "activations") | files(store / "models") == before
    fresh = run(case.request(tmp_path / "fresh", evaluate=False, **change))
    assert outcome.edit == fresh.edit
    for name in ("mask.safetensors", "delta.safetensors"):
        assert (Path(outcome.url) / name).read_bytes() == (Path(fresh.url) / name).read_bytes()
    one, other = erase_cases.manifest(outcome.url), erase_cases.manifest(fresh.url)
    assert {**one, "created": "", "files": {}} == {**other, "created": "", "files": {}}
    expected = erase_cases.recomputed(store, case, one)
    for site, mask in erase_cases.masks(outcome.url).items():
        np.testing.assert_array_equal(mask, expected[site], err_msg=site)


def test_what_is_not_given_stays(case: Case, store: Path) -> None:
    again(case, store, t_hat=1)
    assert again(case, store, sparsity="0.5").manifest["prune"] | {"kinds": []} == {
        "sparsity": "0.5", "t_hat": 1, "vote_share": 0.0, "branch": "both", "kinds": [],
    }  # fmt: skip


def test_it_goes_on_from_the_edit_that_was_made_latest(case: Case, store: Path) -> None:
    again(case, store, t_hat=1)
    again(case, store, t_hat=2)  # the first edit, made latest again
    assert again(case, store, sparsity="0.5").manifest["prune"]["t_hat"] == 2


def test_the_same_settings_make_no_other_edit(case: Case, store: Path) -> None:
    again(case, store)
    before = files(store)
    outcome = again(case, store)
    changed = {name for name, state in files(store).items() if state != before.get(name)}
    assert {name.split("/")[-1] for name in changed} <= {"latest.json", ".lock"}
    assert Path(outcome.url).is_dir()


def test_masks_grow_with_sparsity(case: Case, store: Path) -> None:
    masks = [erase_cases.masks(again(case, store, sparsity=k).url) for k in ("0.1", "0.3", "0.6")]
    for smaller, larger in zip(masks, masks[1:], strict=False):
        for site in smaller:
            assert not (smaller[site] & ~larger[site]).any()


WITHOUT_TORCH = """
import atexit, json, sys
def report():
    print(json.dumps(sorted({"torch", "diffusers", "transformers", "accelerate"} & set(sys.modules))), file=sys.stderr)
atexit.register(report)
from flows.cli import main
main()
"""


def test_neither_torch_nor_the_model_is_needed(case: Case, store: Path, tmp_path: Path) -> None:
    """The model's folder is gone, and so are the catalog and the judge."""
    words = ["rethreshold", "fox", "--sparsity", "0.5", "--store", str(store), "--no-prefect", "--json"]
    gone = {f"CONCEPTPRUNE_{name}": str(tmp_path / "gone") for name in ("MODEL", "CATALOG", "JUDGE")}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words],
        cwd=ROOT, env={**os.environ, **gone}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1]) == []
    [found] = json.loads(done.stdout)["rows"]
    assert found["sparsity"] == 0.5
    expected = erase_cases.recomputed(store, case, erase_cases.manifest(found["url"]))
    for site, mask in erase_cases.masks(found["url"]).items():
        np.testing.assert_array_equal(mask, expected[site], err_msg=site)


def test_before_an_erasure_it_says_what_to_do(case: Case, tmp_path: Path) -> None:
    store = tmp_path / "store"
    with pytest.raises(ValueError, match=f"no edit of fox in {store}; run conceptprune erase fox first"):
        again(case, store)
    assert not store.exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"t_hat": 4}, "t_hat is 4, but only 3 steps are captured"),
        ({"t_hat": 0}, "t_hat\n.*greater than or equal to 1"),
        ({"sparsity": "0.00001"}, r"no candidate in unet.* \(width 32\); the smallest that works .* is 0.03125"),
        ({"sparsity": "nan"}, "sparsity"),
        ({"vote_share": 1.0}, "vote_share\n.*less than 1"),
        ({"branch": "none"}, "branch\n.*'both', 'cond' or 'uncond'"),
        ({"concept": "apple"}, "no edit of apple"),
    ],
    ids=str,
)
def test_bad_input_changes_nothing(case: Case, store: Path, change: dict[str, Any], says: str) -> None:
    before = files(store)
    with pytest.raises(ValueError, match=says):
        again(case, store, **change)
    assert files(store) == before


def test_a_branch_that_was_not_captured_is_refused(case: Case, tmp_path: Path) -> None:
    run(case.request(tmp_path, guidance=1.0, evaluate=False))
    before = files(tmp_path)
    with pytest.raises(ValueError, match="branch uncond is not run at this guidance; choose both or cond"):
        again(case, tmp_path, branch="uncond")
    assert files(tmp_path) == before


def test_images_are_drawn_the_way_that_was_captured(case: Case, tmp_path: Path) -> None:
    """The command has no --steps, --size or --dtype: they stay as they were."""
    store = tmp_path / "store"
    first = run(case.request(store, steps=3, window=2, size=40, guidance=2.0, dtype="bfloat16", sparsity="0.1"))
    second = again(case, store, t_hat=1, evaluate=True)
    assert second.manifest["prune"]["sparsity"] == "0.1"
    assert second.sheet
    before = [(Path(outcome.url) / "images/concept-000-before.png").read_bytes() for outcome in (first, second)]
    assert before[0] == before[1]


def test_fault_10_another_model_draws_no_images(case: Case, store: Path, tmp_path: Path) -> None:
    """The reference code evaluates masks of one model on another."""
    other = tiny.save(tmp_path / "another", seed=1)
    before = files(store)
    with pytest.raises(ValueError, match="fox was captured from another model than .*another, tiny-model"):
        again(case, store, model=str(other), t_hat=1, evaluate=True)
    assert files(store) == before


def test_other_prompts_are_not_judged_by_this_capture(case: Case, store: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.toml"
    words.write_text(CATALOG.replace('fox = "a fox"', 'fox = "the fox"'), "utf-8")
    with pytest.raises(ValueError, match="fox has other prompts in .*words.toml than were captured"):
        again(case, store, catalog=str(words), evaluate=True)
