"""A whole catalog: sets shared, failures alone, reruns that do only what is missing, rows that others read."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import duckdb
import pandas
import polars
import pyarrow.dataset
import pytest
from click.testing import Result
from typer.testing import CliRunner

from flows.catalog_plan import make_catalog_plan
from flows.cli import app
from flows.config import CatalogRequest
from flows.erase_catalog import erase_all, erase_catalog
from flows.steps import Steps
from flows.tabling import CatalogOutcome, ConceptsFailed
from storage import tables
from storage.activations import captured_sets
from storage.roots import Root
from tests import erase_cases
from tests.erase_cases import CATALOG, Case, files
from tests.seaweed import Seaweed

TOO_LONG = "a cat in the style of a dog of a fox"
LONG = f"""
[[concepts]]
slug = "long"
kind = "own"
reference = ["a cat"]
target = ["{TOO_LONG}"]
"""
PHOTO_AGAIN = '\n[[concepts]]\nslug = "of"\nkind = "style"\n'


def request(case: Case, store: object, catalog: Path | None = None, **options: object) -> CatalogRequest:
    values = {**case.request(Path("x")).model_dump(exclude={"concept"}), "evaluate": False, **options}
    return CatalogRequest(**{**values, "store": str(store), "catalog": str(catalog or case.catalog)})


def run(asked: CatalogRequest) -> CatalogOutcome:
    return erase_all(make_catalog_plan(asked), Steps())


def cli(*words: object) -> Result:
    return CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": "200", "NO_COLOR": "1"})


def sets_in(store: object) -> list[str]:
    [profile] = Root(str(store)).path("activations").folders()
    return captured_sets(str(store), profile)


def test_each_distinct_set_is_captured_once_and_a_rerun_does_nothing(case: Case, root: str) -> None:
    asked = request(case, root, evaluate=False)
    cost = make_catalog_plan(asked).cost()
    assert (cost.concepts, cost.pending, cost.roles, cost.sets) == (4, 4, 8, 7)  # two styles share their references
    outcome = run(asked)
    assert outcome.failed == {}
    assert (outcome.captured, outcome.made, len(sets_in(root))) == (7, 4, 7)
    assert [row.concept for row in outcome.rows] == ["fox", "apple", "photo", "rose"]

    before = {name: (Root(root).path("x").parent / name).sha256() for name in Root(root).path("x").parent.files()}
    again = run(asked)
    assert (again.captured, again.made) == (0, 0)
    assert [row.as_json() for row in again.rows] == [row.as_json() for row in outcome.rows]
    after = {name: (Root(root).path("x").parent / name).sha256() for name in Root(root).path("x").parent.files()}
    assert after == before
    assert make_catalog_plan(asked).cost().lines()[2].startswith("prompts: 0 to run the model on")


def test_one_more_concept_captures_one_set(case: Case, tmp_path: Path) -> None:
    run(request(case, tmp_path / "store"))
    more = tmp_path / "more.toml"
    more.write_text(CATALOG + PHOTO_AGAIN, "utf-8")
    asked = request(case, tmp_path / "store", more)
    cost = make_catalog_plan(asked).cost()
    outcome = run(asked)
    assert (cost.captures, outcome.captured, outcome.made, len(outcome.rows)) == (1, 1, 1, 5)


def test_a_row_a_concept_and_edit_that_others_read(case: Case, tmp_path: Path) -> None:
    outcome = run(request(case, tmp_path, evaluate=True, concepts=["fox", "apple"]))
    found = pyarrow.dataset.dataset(tmp_path / "tables" / "edits").to_table().to_pylist()
    assert {row["concept"]: row["edit"] for row in found} == {row.concept: row.edit for row in outcome.rows}
    for row in found:
        manifest = erase_cases.manifest(row["url"])
        report = json.loads((Path(row["url"]) / "report.json").read_bytes())
        assert row["sparsity"] == float(manifest["prune"]["sparsity"])
        assert row["density"] == row["pruned"] / row["weights"]
        assert row["pruned"] == sum(site["pruned"] for site in report["sites"].values())
        assert row["concept_after"] == report["evaluation"]["concept"]["after"]
        assert row["others_n"] == report["evaluation"]["others"]["n"]
        assert row["bytes_delta"] == manifest["files"]["delta.safetensors"]["size"]
    run(request(case, tmp_path, evaluate=True, concepts=["fox", "apple"]))
    assert tables.read(tmp_path, "edits").num_rows == 2
    run(request(case, tmp_path, concepts=["fox", "apple"]))  # a part with columns that hold nothing
    parts = str(tmp_path / "tables" / "edits" / "*.parquet")
    asked = f"select concept, density, concept_after from '{parts}' order by concept, concept_after nulls first"
    by_duckdb = duckdb.sql(asked).fetchall()
    assert [row[0] for row in by_duckdb] == ["apple", "apple", "fox", "fox"]
    assert [row[2] is None for row in by_duckdb] == [True, False, True, False]
    by_polars = polars.read_parquet(parts).sort("concept", "concept_after")
    assert by_polars.select("concept", "density", "concept_after").rows() == by_duckdb
    by_pandas = pandas.read_parquet(tmp_path / "tables" / "edits").sort_values("concept")
    assert list(by_pandas["concept"]) == ["apple", "apple", "fox", "fox"]


def test_a_concept_that_fails_is_named_and_stops_no_other(case: Case, tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text(CATALOG.replace('slug = "rose"\n', 'slug = "rose"\nsparsity = "0.001"\n') + LONG, "utf-8")
    words = ["--store", tmp_path / "store", "--model", case.model, "--no-evaluate", "--no-prefect", "--json"]
    result = cli("catalog", "erase", broken, *words)
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert [row["concept"] for row in found["rows"]] == ["fox", "apple", "photo"]
    assert set(found["failed"]) == {"long", "rose"}
    assert "its target set failed: prompt" in found["failed"]["long"]
    assert "tokens, but the text encoder reads 8; shorten it" in found["failed"]["long"]
    assert "the smallest that works" in found["failed"]["rose"]
    broken.write_text(CATALOG, "utf-8")
    mended = json.loads(cli("catalog", "erase", broken, *words).stdout)
    assert (mended["made"], mended["failed"], mended["captured"]) == (1, {}, 2)


def test_a_damaged_edit_is_named_and_stops_no_other(case: Case, tmp_path: Path) -> None:
    outcome = run(request(case, tmp_path, concepts=["fox", "apple"]))
    mask = Path(outcome.rows[0].url) / "mask.safetensors"
    mask.write_bytes(mask.read_bytes()[:-1])
    again = run(request(case, tmp_path, concepts=["fox", "apple", "photo"]))
    assert [row.concept for row in again.rows] == ["apple", "photo"]
    assert "mask.safetensors" in again.failed["fox"]
    assert "delete that folder" in again.failed["fox"]


def test_check_says_the_cost_and_writes_nothing(case: Case, tmp_path: Path) -> None:
    words = ["--store", tmp_path / "store", "--model", case.model, "--judge", case.judge]
    result = cli("catalog", "check", case.catalog, *words)
    assert result.exit_code == 0, result.stderr
    for phrase in ("concepts: 4, of which 0 are done", "7 distinct for 8 roles; 7 to capture", "images to draw"):
        assert phrase in result.stdout
    assert not (tmp_path / "store").exists()
    cost = json.loads(cli("catalog", "check", case.catalog, *words, "--json", "--concepts", "fox, apple").stdout)
    assert (cost["concepts"], cost["captures"], cost["missing"]) == (2, 4, 11)  # they share a prompt


def test_every_error_of_a_file_is_said_at_once(case: Case, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("slug,kind,words\nA B,artist,x\nok,artist,y\nok,artist,z\nq,artits,w\n", "utf-8")
    result = cli("catalog", "check", wrong, "--store", tmp_path / "store", "--model", case.model, "--no-evaluate")
    assert result.exit_code == 2
    for line in ("row 2", "row 4", "row 5"):
        assert line in result.stderr
    assert result.stdout == ""


def test_a_catalog_outside_of_the_allowed_places_is_refused(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.toml").symlink_to(case.catalog)
    (tmp_path / "in" / "fine.toml").write_text(CATALOG, "utf-8")
    monkeypatch.setenv("CONCEPTPRUNE_CATALOG_ROOTS", f"s3://catalogs/team, {tmp_path / 'in'}")
    run(request(case, tmp_path / "store", tmp_path / "in" / "fine.toml", concepts=["fox"]))
    for outside in (case.catalog, tmp_path / "in" / "link.toml", tmp_path / "in" / ".." / "x.toml"):
        with pytest.raises(ValueError, match="is outside the places that catalogs may come from"):
            make_catalog_plan(request(case, tmp_path, outside))
    result = cli("catalog", "check", "s3://catalogs/teams/x.toml")
    assert result.exit_code == 2
    assert "outside the places" in result.stderr


def test_rethreshold_of_all_concepts_is_one_run(case: Case, tmp_path: Path) -> None:
    run(request(case, tmp_path))
    before = files(tmp_path / "activations")
    result = cli("rethreshold", "--all", "--store", tmp_path, "--sparsity", "0.4", "--no-prefect", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["made"], len(found["rows"]), found["failed"]) == (4, 4, {})
    assert files(tmp_path / "activations") == before
    for row in found["rows"]:
        expected = erase_cases.recomputed(tmp_path, case, erase_cases.manifest(row["url"]))
        for site, mask in erase_cases.masks(row["url"]).items():
            assert (mask == expected[site]).all()


@pytest.mark.parametrize("prompts", ["0-1", "2", "0,2"])
def test_rethreshold_of_some_prompts(case: Case, tmp_path: Path, prompts: str) -> None:
    run(request(case, tmp_path, concepts=["fox"]))
    words = ["rethreshold", "fox", "--store", tmp_path, "--no-prefect", "--json", "--branch", "cond"]
    [row] = json.loads(cli(*words, "--prompts", prompts).stdout)["rows"]
    found = erase_cases.manifest(row["url"])
    assert found["prune"]["prompts"] == prompts
    expected = erase_cases.recomputed(tmp_path, case, found)
    for site, mask in erase_cases.masks(row["url"]).items():
        assert (mask == expected[site]).all()
    refused = cli(*words, "--prompts", "0-3")
    assert refused.exit_code == 2
    assert "prompts 0-3 asks for 3, but there are 3, 0 to 2" in refused.stderr


def test_which_concepts_must_be_said(tmp_path: Path) -> None:
    for words in (["rethreshold"], ["rethreshold", "fox", "--all"]):
        result = cli(*words, "--store", tmp_path)
        assert result.exit_code == 2
        assert "which concepts? Give their slugs" in result.stderr


@pytest.mark.s3
def test_no_secret_is_in_a_parameter_a_log_an_artifact_or_a_file(
    case: Case,
    tmp_path: Path,
    s3_root: str,
    s3_server: Seaweed,
    prefect_server: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The server's own secret key is the canary."""
    canary = s3_server.secret_key.encode()
    long = tmp_path / "long.toml"
    long.write_text(CATALOG + LONG, "utf-8")
    with caplog.at_level(logging.DEBUG):
        erase_catalog(request(case, s3_root, evaluate=True, concepts=["fox"]))
        with pytest.raises(ConceptsFailed):
            erase_catalog(request(case, s3_root, long, concepts=["fox", "long"]))
    assert canary.decode() not in caplog.text
    root = Root(s3_root).path("x").parent
    for name in root.files():
        assert canary not in ((root / name).get() or b""), name
    home = Path(os.environ["PREFECT_HOME"])
    kept = [path for path in home.rglob("*") if path.is_file()]  # the database: parameters, logs, artifacts
    assert any(path.suffix == ".db" for path in kept) or kept
    assert not [path for path in kept if canary in path.read_bytes()]
