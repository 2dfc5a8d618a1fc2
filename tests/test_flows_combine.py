"""Several concepts in one edit: the masks that plain loops combine, in any order, of one model, without torch."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from flows import combine as combine_flow
from flows.combine import CombineRequest, combine_all, plan_combination
from flows.config import CatalogRequest
from flows.erase_concept import erase
from flows.outcome import Outcome
from flows.plan import make_plan
from flows.rethreshold import cut_all, plan_cuts
from flows.showing import describe
from flows.steps import Steps
from flows.stored import stored_cut
from storage import tables
from storage.listing import latest_edit, list_edits
from tasks.applying import with_edit
from tasks.diffusion import pipelines
from tests import erase_cases, oracle, tiny
from tests.erase_cases import ROOT, Case, files
from tests.test_flows_cli import cli, refused
from tests.test_flows_rethreshold import WITHOUT_TORCH

OWN: dict[str, dict[str, Any]] = {  # each concept with its own k, t_hat and vote share
    "fox": {"sparsity": "0.3", "t_hat": 3, "vote_share": 0.5},
    "apple": {"sparsity": "0.1", "t_hat": 2, "vote_share": 0.0},
    "photo": {"sparsity": "0.5", "t_hat": 1, "vote_share": 0.3},
    "rose": {"sparsity": "0.2", "t_hat": 2, "vote_share": 0.9},
}


def run(store: Path, erase: list[str], protect: list[str] | None = None, name: str = "several") -> Outcome:
    """Combine without Prefect."""
    request = CombineRequest(name=name, erase=erase, protect=protect or [], store=str(store))
    return combine_all(plan_combination(request), Steps())


def cut(case: Case, store: Path, concept: str, **options: Any) -> str:
    """Another edit of a concept, which becomes its latest. Returns its digest."""
    asked = CatalogRequest.of(case.request(store, concept, evaluate=False, **options))
    return cut_all(plan_cuts(asked), Steps()).rows[0].edit


@pytest.fixture(scope="module")
def erased(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with four concepts erased, for copying."""
    store = tmp_path_factory.mktemp("erased")
    for concept, own in OWN.items():
        erase(make_plan(case.request(store, concept, evaluate=False, **own)), Steps())
    return store


@pytest.fixture
def store(erased: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(erased, tmp_path / "store"))


def masks_of(store: Path, concept: str) -> dict[str, np.ndarray]:
    edit = latest_edit(store, concept)
    assert edit
    return erase_cases.masks(str(edit.path))


def expected(store: Path, erase: list[str], protect: list[str]) -> dict[str, np.ndarray]:
    """The combined masks by plain loops over the parts' mask files."""
    found = {concept: masks_of(store, concept) for concept in (*erase, *protect)}
    return {
        site: np.array(oracle.combined([found[c][site] for c in erase], [found[c][site] for c in protect]))
        for site in found[erase[0]]
    }


@pytest.mark.parametrize(
    ("erase", "protect"),
    [(["fox"], []), (["fox", "apple", "photo"], []), (["fox", "photo"], ["rose"]), (["photo"], ["apple", "rose"])],
)
def test_its_mask_is_what_plain_loops_combine(case: Case, store: Path, erase: list[str], protect: list[str]) -> None:
    outcome = run(store, erase, protect)
    base, delta = erase_cases.weights(case.model), load_file(Path(outcome.url) / "delta.safetensors")
    for site, mask in expected(store, erase, protect).items():
        np.testing.assert_array_equal(erase_cases.masks(outcome.url)[site], mask, err_msg=site)
        assert outcome.report["sites"][site] == {"width": mask.shape[1], "weights": mask.size, "pruned": mask.sum()}
        name = f"{site}.weight"
        np.testing.assert_array_equal(delta.get(name, base[name]), base[name] * ~mask)


def test_fault_12_a_vote_share_drops_no_concept_of_a_union(case: Case, store: Path) -> None:
    """The reference code counts votes across concepts: with a vote share the earlier ones fall out of the union."""
    union = erase_cases.masks(run(store, ["fox", "apple", "photo", "rose"]).url)
    for concept, own in OWN.items():
        found = latest_edit(store, concept)
        assert found
        assert (found.manifest["prune"]["t_hat"], found.manifest["prune"]["vote_share"]) == (
            own["t_hat"],
            own["vote_share"],
        )
        for site, mask in erase_cases.recomputed(store, case, found.manifest).items():
            assert not (mask & ~union[site]).any(), f"{concept} lost weights of {site}"


def test_the_manifest_names_the_parts_and_rests_on_no_prompts(store: Path) -> None:
    outcome = run(store, ["fox", "photo"], ["rose"])
    found = erase_cases.manifest(outcome.url)
    ids = {concept: edit.id for concept in OWN if (edit := latest_edit(store, concept))}
    fox = latest_edit(store, "fox")
    assert fox
    assert found["prune"] == {
        "combined": {"erase": {"fox": ids["fox"], "photo": ids["photo"]}, "protect": {"rose": ids["rose"]}}
    }
    assert (found["prompt_sets"], found["concept"]) == ({}, "several")
    assert (found["profile"], found["model"]) == (fox.manifest["profile"], fox.manifest["model"])
    assert set(found["files"]) == {"mask.safetensors", "delta.safetensors", "report.json"}


def test_parts_of_unlike_profiles_have_none_in_common(case: Case, store: Path) -> None:
    erase(make_plan(case.request(store, "fox", evaluate=False, guidance=2.0)), Steps())
    outcome = run(store, ["fox", "apple"])
    assert outcome.manifest["profile"] == ""
    assert [row["profile"] for row in tables.read(store, "edits").to_pylist() if row["combined"]] == [""]


def test_the_report_says_what_protection_spares(store: Path) -> None:
    outcome = run(store, ["fox", "photo"], ["rose", "apple"])
    masks = {concept: masks_of(store, concept) for concept in OWN}
    kept = {site: masks["rose"][site] | masks["apple"][site] for site in masks["fox"]}
    assert set(outcome.report["overlaps"]) == {"fox", "photo"}
    for concept, found in outcome.report["overlaps"].items():
        own = masks[concept]
        assert found == {
            "weights": sum(mask.sum() for mask in own.values()),
            "spared": sum((own[site] & kept[site]).sum() for site in own),
            "by": {other: sum((own[site] & masks[other][site]).sum() for site in own) for other in ("apple", "rose")},
        }
        assert found["spared"] > 0


def test_order_is_irrelevant_to_every_byte(store: Path, erased: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(erased, tmp_path / "other"))
    one = run(store, ["fox", "photo", "fox"], ["rose", "apple"])
    same = run(other, ["photo", "fox"], ["apple", "rose"])
    assert one.edit == same.edit
    for name in ("mask.safetensors", "delta.safetensors"):
        assert (Path(one.url) / name).read_bytes() == (Path(same.url) / name).read_bytes()
    manifests = [{**erase_cases.manifest(found.url), "created": "", "files": {}} for found in (one, same)]
    assert manifests[0] == manifests[1]


def test_adding_and_then_removing_gives_the_edit_before(store: Path) -> None:
    first = run(store, ["fox", "photo"])
    before = files(Path(first.url))
    more = run(store, ["fox", "photo", "apple"])
    assert more.edit != first.edit
    assert describe(str(store), "several")["edits"][1]["latest"]
    again = run(store, ["fox", "photo"])
    assert (again.edit, again.url) == (first.edit, first.url)
    assert files(Path(first.url)) == before
    latest = latest_edit(store, "several")
    assert latest
    assert latest.id == first.edit


def test_a_part_may_be_named_by_its_edit(case: Case, store: Path) -> None:
    old = latest_edit(store, "fox")
    assert old
    new = cut(case, store, "fox", sparsity="0.6")
    assert run(store, ["fox", "apple"]).manifest["prune"]["combined"]["erase"]["fox"] == new
    outcome = run(store, [f"fox@{old.id}", "apple"])
    assert outcome.manifest["prune"]["combined"]["erase"]["fox"] == old.id
    masks = erase_cases.masks(str(old.path))
    for site, mask in masks_of(store, "apple").items():
        np.testing.assert_array_equal(erase_cases.masks(outcome.url)[site], mask | masks[site])


def test_a_combination_can_be_a_part(store: Path) -> None:
    run(store, ["fox", "photo"], ["rose"], name="some")
    outcome = run(store, ["some", "apple"])
    for site, mask in expected(store, ["some", "apple"], []).items():
        np.testing.assert_array_equal(erase_cases.masks(outcome.url)[site], mask)


def test_it_goes_onto_the_model_like_any_edit(case: Case, store: Path) -> None:
    outcome = run(store, ["fox", "photo"], ["rose"])
    pipe = pipelines.load(case.request(store).model_spec)
    before = {name: weight.clone() for name, weight in pipe.unet.state_dict().items()}
    with with_edit(pipe, outcome.url):
        for site, mask in erase_cases.masks(outcome.url).items():
            name = f"{site.removeprefix('unet.')}.weight"
            np.testing.assert_array_equal(pipe.unet.state_dict()[name].numpy(), before[name].numpy() * ~mask)


def test_neither_torch_nor_the_model_is_needed(store: Path, tmp_path: Path) -> None:
    """The model's folder is gone, and so are the energies, the rankings, the catalog and the judge."""
    for folder in ("activations", "rankings"):
        shutil.rmtree(store / folder)
    gone = {f"CONCEPTPRUNE_{name}": str(tmp_path / "gone") for name in ("MODEL", "CATALOG", "JUDGE")}
    words = ["combine", "several", "--erase", "fox,photo", "--protect", "rose"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words, "--store", str(store), "--no-prefect", "--json"],
        cwd=ROOT, env={**os.environ, **gone}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1]) == []
    found = json.loads(done.stdout)
    for site, mask in expected(store, ["fox", "photo"], ["rose"]).items():
        np.testing.assert_array_equal(erase_cases.masks(found["url"])[site], mask)


def test_fault_10_parts_of_two_models_are_refused(case: Case, store: Path, tmp_path: Path) -> None:
    """The reference code unites masks of any models."""
    other = tiny.save(tmp_path / "another", seed=1)
    odd = erase(make_plan(case.request(store, "rose", evaluate=False, model=str(other))), Steps())
    before = files(store)
    says = rf"^rose@{odd.edit} is an edit of the model another-\S+, fox of tiny-model-\S+; combine edits of one model"
    with pytest.raises(ValueError, match=says):
        run(store, ["fox", "rose", "apple"])
    assert files(store) == before


def test_readers_cope_with_a_combined_edit(case: Case, store: Path) -> None:
    outcome = run(store, ["fox", "photo"], ["rose"])
    found = describe(str(store), "several")
    assert (found["captures"], [edit["edit"] for edit in found["edits"]]) == ([], [outcome.edit])
    [row] = [row for row in tables.read(store, "edits").to_pylist() if row["concept"] == "several"]
    assert re.fullmatch(r"fox@\w{16} \+ photo@\w{16} - rose@\w{16}", row["combined"])
    assert (row["sparsity"], row["reference"], row["pruned"]) == (None, None, outcome.pruned[0])
    with pytest.raises(ValueError, match="^several is a combination of other edits .* rethreshold fox, and combine"):
        stored_cut(case.request(store, "several"), "several")
    for command in (["rethreshold", "several", "--sparsity", "0.1"], ["sweep", "several", "--t-hat", "1"]):
        refused(cli(*command, "--store", store, "--no-prefect"), "several is a combination of other edits")


def test_people_see_what_was_combined_and_spared(store: Path) -> None:
    done = cli("combine", "several", "--erase", "fox, photo", "--protect", "rose", "--store", store, "--no-prefect")
    assert done.exit_code == 0, done.stderr
    edit = latest_edit(store, "several")
    assert edit
    overlap = json.loads(edit.read("report.json"))["overlaps"]["fox"]
    for phrase in ("by rose", f"{overlap['weights']:,}", f"{overlap['spared']:,}", str(edit.path), "combined of fox@"):
        assert phrase in done.stdout
    assert "--evaluate" not in done.stdout
    shown = cli("show", "several", "--store", store)
    assert shown.exit_code == 0, shown.stderr
    assert "combines fox@" in shown.stdout


BAD = [
    (["several", "--erase", "cat"], "there is no edit of cat in .*; run conceptprune erase cat first"),
    (["several", "--erase", "fox@0123456789abcdef"], "fox has no edit 0123456789abcdef in .*; it has [0-9a-f]{16}$"),
    (["several", "--erase", "fox@"], "'fox@' names no part; give a slug such as fox, or slug@edit"),
    (["several", "--erase", "fox@latest,fox@0123456789abcdef"], "fox is named twice, with different edits"),
    (["several", "--erase", ","], "erase is .*at least 1 item"),
    (["several", "--erase", "fox,rose", "--protect", "rose"], "rose: erased and protected at once"),
    (["several", "--erase", "apple", "--protect", "fox,photo,rose,all"], "there is no edit of all"),
    (["fox", "--erase", "fox,rose"], "fox is a part and the combination's name"),
    (["apple", "--erase", "fox,rose"], "apple is a concept with edits of its own; give the combination another name"),
    (["A/B", "--erase", "fox"], "name 'A/B' is not made of lower-case letters, digits and single dashes"),
]


@pytest.mark.parametrize(("words", "says"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_is_one_sentence_and_writes_nothing(erased: Path, words: list[str], says: str) -> None:
    before = files(erased)
    refused(cli("combine", *words, "--store", erased, "--no-prefect"), says)
    assert files(erased) == before


def test_nothing_left_to_erase_is_refused(case: Case, store: Path) -> None:
    run(store, ["fox"], name="twin")
    refused(
        cli("combine", "several", "--erase", "fox", "--protect", "twin", "--store", store, "--no-prefect"),
        "nothing is left to erase: twin protects every weight of fox",
    )
    assert not latest_edit(store, "several")


def test_a_damaged_part_is_never_combined(store: Path) -> None:
    edit = latest_edit(store, "fox")
    assert edit
    path = Path(str(edit.path)) / "mask.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    done = cli("combine", "several", "--erase", "fox,apple", "--store", store, "--no-prefect")
    assert done.exit_code == 1
    assert "mask.safetensors of" in done.stderr
    assert "wrong sha256" in done.stderr
    assert not [edit for edit in list_edits(store) if edit.concept == "several"]


@pytest.mark.slow  # the server takes 10 to 25 s to start
def test_with_prefect_it_is_the_same_edit(store: Path, erased: Path, tmp_path: Path, prefect_server: None) -> None:
    other = Path(shutil.copytree(erased, tmp_path / "other"))
    request = CombineRequest(name="several", erase=["fox", "photo"], protect=["rose"], store=str(other))
    found = combine_flow.combine(request)
    assert found["edit"] == run(store, ["fox", "photo"], ["rose"]).edit
    assert erase_cases.manifest(found["url"])["edit"] == found["edit"]
