"""Plots of a concept: what they are drawn from, what they leave out and say so, and where they go."""

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
import xarray as xr
from PIL import Image

from flows.combine import CombineRequest, combine_all, plan_combination
from flows.config import CatalogRequest
from flows.erase_concept import erase
from flows.plan import make_plan
from flows.rethreshold import cut_all, plan_cuts
from flows.steps import Steps
from storage.listing import latest_edit
from tasks import overlapping, plotting
from tasks.metrics import concept_charts
from tasks.plotting import plot_concept
from tasks.pruning.stability import bootstrap
from tests import erase_cases, oracle
from tests.erase_cases import ROOT, Case, files
from tests.test_flows_cli import cli, refused
from tests.test_flows_rethreshold import WITHOUT_TORCH

EVERY = {"density-by-site", "energies", "skilled", "frequency", "iou-by-site", "iou-by-step"}


@pytest.fixture(scope="module")
def erased(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with three concepts erased, for copying."""
    store = tmp_path_factory.mktemp("erased")
    for concept in ("apple", "rose", "fox"):
        erase(make_plan(case.request(store, concept, evaluate=False, vote_share=0.3)), Steps())
    return store


@pytest.fixture
def store(erased: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(erased, tmp_path / "store"))


def draw(store: Path, concept: str = "fox", **options: Any) -> plotting.Plots:
    return plot_concept(str(store), concept, str(store.parent / "plots"), **options)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Any, ...]]:
    """The values that each chart is given."""
    seen: dict[str, tuple[Any, ...]] = {}
    for name in ("density_by_site", "energies", "skilled_shares", "frequencies", "overlap_map"):

        def record(*values: Any, name: str = name) -> bytes:
            seen[f"{name} {values[-1].split()[0]}" if name == "overlap_map" else name] = values
            return b""

        monkeypatch.setattr(concept_charts, name, record)
    return seen


def masks_of(store: Path, concept: str) -> dict[str, np.ndarray]:
    edit = latest_edit(store, concept)
    assert edit
    return erase_cases.masks(str(edit.path))


def trees(store: Path, concept: str) -> dict[str, xr.DataTree]:
    """The energies of both roles, by xarray alone."""
    edit = latest_edit(store, concept)
    assert edit
    folder = store / "activations" / edit.manifest["profile"]
    return {
        role: xr.open_datatree(str(folder / f"{digest}.zarr"), engine="zarr", consolidated=False, chunks={})
        for role, digest in edit.manifest["prompt_sets"].items()
    }


def test_every_plot_is_a_picture_that_says_whose_it_is(store: Path) -> None:
    plots = draw(store)
    assert set(plots.paths) == {f"fox-{name}" for name in EVERY}
    assert plots.notes == []
    for name, path in plots.paths.items():
        assert Path(path) == store.parent / "plots" / f"{name}.png"
        with Image.open(path) as image:
            assert image.size > (300, 200)


def test_densities_are_those_of_the_masks(store: Path, drawn: dict[str, tuple[Any, ...]]) -> None:
    draw(store)
    masks = masks_of(store, "fox")
    concept, densities, overall = drawn["density_by_site"]
    assert (concept, densities) == ("fox", {site: mask.mean() for site, mask in masks.items()})
    assert overall == sum(mask.sum() for mask in masks.values()) / sum(mask.size for mask in masks.values())


def test_energies_are_those_of_the_most_pruned_neuron_of_each_site(
    store: Path, drawn: dict[str, tuple[Any, ...]]
) -> None:
    draw(store)
    _, traces, t_hat = drawn["energies"]
    masks, energies = masks_of(store, "fox"), trees(store, "fox")
    assert ([trace.site for trace in traces], t_hat) == (list(masks), 2)
    for trace in traces:
        rows = masks[trace.site].sum(0)
        assert rows[trace.neuron] == rows.max()
        assert trace.share == rows.max() / masks[trace.site].shape[0]
        for role in ("target", "reference"):
            stored = energies[role][trace.site]["energy"].transpose("prompt", "step", "branch", "neuron").values
            np.testing.assert_allclose(getattr(trace, role), stored[..., trace.neuron].sum(2), rtol=1e-6)


def test_energies_are_of_the_branch_that_counts(case: Case, store: Path, drawn: dict[str, tuple[Any, ...]]) -> None:
    asked = CatalogRequest.of(case.request(store, evaluate=False, branch="cond", prompts="0,2"))
    cut_all(plan_cuts(asked), Steps())
    draw(store)
    for trace in drawn["energies"][1]:
        stored = trees(store, "fox")["target"][trace.site]["energy"].sel(branch="cond").values[[0, 2], :, trace.neuron]
        np.testing.assert_array_equal(trace.target, stored)


def test_skilled_shares_are_what_plain_loops_find(case: Case, store: Path, drawn: dict[str, tuple[Any, ...]]) -> None:
    draw(store, "rose")  # more reference than target prompts
    _, shares, overall, _ = drawn["skilled_shares"]
    energies, skilled, total = trees(store, "rose"), np.zeros(3), 0
    for name, weight in erase_cases.weights(case.model).items():
        site = name.removesuffix(".weight")
        norms = {role: oracle.norms(tree[site]["energy"].values, [0, 1], True) for role, tree in energies.items()}
        count = oracle.candidates("0.2", weight.shape[1])
        for step in range(3):
            one = [norms[role][step : step + 1] for role in ("target", "reference")]
            found = np.sum(oracle.votes(weight, *one, count, 1))
            assert shares[site][step] == pytest.approx(found / (count * weight.shape[0]))
            skilled[step] += found
        total += count * weight.shape[0]
    np.testing.assert_allclose(overall, skilled / total)


def test_frequencies_are_what_plain_loops_find(
    case: Case, store: Path, drawn: dict[str, tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plotting, "SAMPLES", 4)
    plots = draw(store, seconds=0)  # the smallest site is always taken
    _, inside, outside, samples, sites, of_sites = drawn["frequencies"]
    weights = erase_cases.weights(case.model)
    site = min(weights, key=lambda name: (weights[name].size, name)).removesuffix(".weight")
    assert (samples, sites, of_sites) == (4, 1, 4)
    assert plots.notes[0] == f"the bootstrap took 1 of 4 sites, the smallest, in the 0 s that it may take: {site}"
    energies = {role: tree[site]["energy"].values for role, tree in trees(store, "fox").items()}
    draws = list(zip(*bootstrap(3, 3, 4), strict=True))
    expected = np.array(
        oracle.frequency(
            weights[f"{site}.weight"], energies["target"], energies["reference"], [0, 1], draws, "0.2", 2, "0.3"
        )
    )
    mask = masks_of(store, "fox")[site]
    np.testing.assert_array_equal(inside, expected[mask])
    np.testing.assert_array_equal(outside, expected[~mask])


def test_overlaps_are_what_plain_loops_find(store: Path, drawn: dict[str, tuple[Any, ...]]) -> None:
    draw(store)
    _, others, columns, table, _ = drawn["overlap_map site"]
    masks = {concept: masks_of(store, concept) for concept in ("fox", "apple", "rose")}
    assert sorted(others) == ["apple", "rose"]
    assert (columns[0], len(columns)) == ("all", 5)
    for row, other in enumerate(others):
        mine, theirs = list(masks["fox"].values()), [masks[other][site] for site in masks["fox"]]
        expected = [oracle.iou(mine, theirs), *(oracle.iou([a], [b]) for a, b in zip(mine, theirs, strict=True))]
        np.testing.assert_allclose(table[row], expected)
    assert table[0, 0] >= table[1, 0]  # the most alike first


def test_overlaps_by_step_are_of_the_masks_that_each_step_gives_alone(
    case: Case, store: Path, drawn: dict[str, tuple[Any, ...]]
) -> None:
    draw(store)
    _, others, columns, table, label = drawn["overlap_map step"]
    assert (columns, label) == (["0", "1"], "step (the first 2 vote); mean over 4 sites")
    energies = {concept: trees(store, concept) for concept in ("fox", *others)}
    weights = erase_cases.weights(case.model)
    for row, other in enumerate(others):
        for step in range(2):
            found = []
            for name, weight in weights.items():
                masks = []
                for concept in ("fox", other):
                    site = {
                        role: tree[name.removesuffix(".weight")]["energy"] for role, tree in energies[concept].items()
                    }
                    mean = site["target"].sizes["prompt"] != site["reference"].sizes["prompt"]
                    norms = [oracle.norms(site[role].values, [0, 1], mean)[step : step + 1]
                             for role in ("target", "reference")]  # fmt: skip
                    masks.append(oracle.mask(weight, *norms, "0.2", 1))
                found.append(oracle.iou([masks[0]], [masks[1]]))
            assert table[row, step] == pytest.approx(np.mean(found))


def test_only_the_most_recent_others_are_compared(
    store: Path, drawn: dict[str, tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlapping, "OTHERS", 1)
    plots = draw(store)
    recent = max(("apple", "rose"), key=lambda slug: (latest_edit(store, slug).manifest["created"], slug))  # type: ignore[union-attr]
    assert drawn["overlap_map site"][1] == [recent]
    assert plots.notes == ["compared with the 1 most recent of 2 other concepts"]


def test_what_is_not_ranked_so_deep_or_captured_otherwise_is_left_out_by_step(
    case: Case, store: Path, drawn: dict[str, tuple[Any, ...]]
) -> None:
    erase(make_plan(case.request(store, "apple", evaluate=False, guidance=2.0)), Steps())
    asked = CatalogRequest.of(case.request(store, evaluate=False, sparsity="0.6"))
    cut_all(plan_cuts(asked), Steps())
    plots = draw(store)
    assert set(plots.paths) == {f"fox-{name}" for name in EVERY - {"iou-by-step"}}
    assert plots.notes == [
        "the overlaps by step leave out apple, rose: not captured under the same profile, or not ranked as deep as k "
        "0.6 needs"
    ]


def test_a_lone_concept_says_that_there_is_nothing_to_compare(
    case: Case, tmp_path: Path, drawn: dict[str, tuple[Any, ...]]
) -> None:
    store = tmp_path / "store"
    erase(make_plan(case.request(store, evaluate=False)), Steps())
    plots = draw(store)
    assert set(plots.paths) == {f"fox-{name}" for name in EVERY if not name.startswith("iou")}
    assert plots.notes == ["there is no other concept of this model in the store to compare with"]


def test_a_combined_edit_has_densities_and_overlaps_alone(store: Path, drawn: dict[str, tuple[Any, ...]]) -> None:
    request = CombineRequest(name="several", erase=["fox", "rose"], store=str(store))
    combine_all(plan_combination(request), Steps())
    plots = draw(store, "several")
    assert set(plots.paths) == {"several-density-by-site", "several-iou-by-site"}
    assert plots.notes == ["several combines other edits, so it has no energies, votes or bootstrap of its own"]
    assert not [note for note in draw(store).notes if "several" in note]  # nor is it compared with


def test_energies_that_are_gone_are_said_to_be(store: Path, drawn: dict[str, tuple[Any, ...]]) -> None:
    shutil.rmtree(store / "activations")
    plots = draw(store)
    assert set(plots.paths) == {"fox-density-by-site", "fox-iou-by-site", "fox-iou-by-step"}
    assert plots.notes == ["the energies of fox are not in the store any more: no plots of them"]
    shutil.rmtree(store / "rankings")
    assert draw(store).notes[1:] == ["the ranking of fox is not in the store: no overlaps by step"]


def test_a_deleted_ranking_is_made_again(store: Path, drawn: dict[str, tuple[Any, ...]]) -> None:
    draw(store)
    before = drawn.pop("skilled_shares")
    shutil.rmtree(store / "rankings")
    draw(store)
    for one, same in zip(before[1].values(), drawn["skilled_shares"][1].values(), strict=True):
        np.testing.assert_array_equal(one, same)


def test_show_prints_where_the_plots_are_and_needs_no_torch(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    gone = {f"CONCEPTPRUNE_{name}": str(tmp_path / "gone") for name in ("MODEL", "CATALOG", "JUDGE")}
    words = ["show", "fox", "--store", str(store), "--plots", str(folder), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words],
        cwd=ROOT, env={**os.environ, **gone}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1]) == []
    found = json.loads(done.stdout)
    assert {Path(path).name for path in found["plots"].values()} == {f"fox-{name}.png" for name in EVERY}
    assert found["notes"] == []


def test_people_see_where_the_plots_are(store: Path, drawn: dict[str, tuple[Any, ...]], tmp_path: Path) -> None:
    shown = cli("show", "fox", "--store", store, "--plots", tmp_path / "here")
    assert shown.exit_code == 0, shown.stderr
    for name in EVERY:
        assert f"plot    {tmp_path}/here/fox-{name}.png" in shown.stdout


def test_a_folder_that_cannot_be_written_is_refused(store: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    before = files(store)
    refused_words = ["show", "fox", "--store", store, "--plots", tmp_path / "file", "--json"]
    result = cli(*refused_words)
    assert result.exit_code == 2, (result.output, result.exception)
    assert "plots cannot be written to" in result.stderr
    assert "give a directory" in result.stderr
    assert files(store) == before
    refused(cli("show", "cat", "--store", store, "--plots", tmp_path / "new"), "no edit of cat in")
    assert not (tmp_path / "new").exists()
