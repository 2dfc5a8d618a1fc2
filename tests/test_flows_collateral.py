"""Collateral: ranked from stored masks and energies, against a plain computation of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from flows.collateral import find_collateral
from flows.erase_concept import erase
from flows.plan import make_plan
from flows.steps import Steps
from tests import erase_cases
from tests.erase_cases import Case
from tests.test_flows_cli import cli, refused


@pytest.fixture(scope="module")
def store(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collateral") / "store"
    for concept in ("fox", "apple", "photo"):
        erase(make_plan(case.request(folder, concept, evaluate=False, sparsity="0.5")), Steps())
    return folder


@pytest.fixture(scope="module")
def found(store: Path) -> dict[str, Any]:
    return find_collateral(str(store), "fox", "latest")


def edits(store: Path) -> dict[str, tuple[dict[str, np.ndarray], dict[str, Any]]]:
    out = {}
    for path in sorted(store.glob("edits/*/*/*/manifest.json")):
        manifest = json.loads(path.read_bytes())
        out[manifest["concept"]] = erase_cases.masks(path.parent), manifest
    return out


def test_what_is_shared_is_counted_of_the_others_mask(store: Path, found: dict[str, Any]) -> None:
    made = edits(store)
    fox = made["fox"][0]
    for row in found["others"]:
        other = made[row["concept"]][0]
        both = sum((fox[site] & mask).sum() for site, mask in other.items())
        assert row["shared"] == pytest.approx(both / sum(mask.sum() for mask in other.values()))
        assert 0 < row["shared"] < 1
    assert [row["shared"] for row in found["others"]] == sorted(
        (row["shared"] for row in found["others"]), reverse=True
    )
    assert {row["concept"] for row in found["others"]} == {"apple", "photo"}
    assert (found["own"]["concept"], found["own"]["shared"]) == ("fox", 1.0)


def test_importance_is_wandas_score_through_pruned_weights(case: Case, store: Path, found: dict[str, Any]) -> None:
    made, weights = edits(store), erase_cases.weights(case.model)
    for row in (found["own"], *found["others"]):
        manifest, shares = made[row["concept"]][1], []
        for role in ("target", "reference"):
            path = store / "activations" / manifest["profile"] / f"{manifest['prompt_sets'][role]}.zarr"
            tree = xr.open_datatree(str(path), engine="zarr", consolidated=False, chunks={})
            pruned = whole = 0.0
            for name, weight in weights.items():
                site = name.removesuffix(".weight")
                energy = tree[site]["energy"].transpose("prompt", "branch", "step", "neuron").values.astype(np.float64)
                norm = np.sqrt(energy.sum((0, 1)) / len(energy)).sum(0)
                score = np.abs(weight) * norm
                whole += score.sum()
                pruned += score[made["fox"][0][site]].sum()
            shares.append(pruned / whole)
        assert row["importance"] == pytest.approx(shares[0], rel=1e-5)
        assert row["excess"] == pytest.approx(shares[0] - shares[1], abs=1e-6)
    assert found["own"]["excess"] > 0  # skilled weights are those that the target feeds more


def test_the_command_prints_a_row_a_concept(store: Path, found: dict[str, Any], tmp_path: Path) -> None:
    shown = cli("collateral", "fox", "--store", store, "--json")
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout) == found
    plain = cli("collateral", "fox", "--store", store).stdout
    assert all(name in plain for name in ("apple", "photo", "importance"))
    refused(cli("collateral", "pear", "--store", store), "no edit of pear")
    refused(cli("collateral", "fox", "--store", store, "--edit", "12345678"), "fox has no edit 12345678")
