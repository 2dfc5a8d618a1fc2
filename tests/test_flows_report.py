"""Reports: one file that fetches nothing, says every number that the store has, and runs nothing that a prompt says."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from flows.report import ReportOutcome, ReportRequest, page_name, plan_report, report, report_all
from flows.steps import Steps
from storage import tables
from storage.edits import Edit
from storage.listing import latest_edit
from storage.roots import place_at
from tasks.catalogs import load_catalog
from tasks.report_images import explicit
from tests.erase_cases import CATALOG, Case
from tests.report_cases import HOSTILE, Page, build, evaluate, make_edit
from tests.storage_cases import flip
from tests.test_flows_cli import cli, refused


@pytest.fixture(scope="module")
def store(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be read only."""
    return build(case, tmp_path_factory.mktemp("reported") / "store")


def run(case: Case, store: object, to: object, *words: object) -> Result:
    """Without a concept among the words: the fox."""
    asked = words if words and not str(words[0]).startswith("--") else ("fox", *words)
    return cli("report", *asked, "--to", to, "--store", store, "--catalog", case.catalog, "--no-prefect")


@pytest.fixture(scope="module")
def written(case: Case, store: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    to = tmp_path_factory.mktemp("written") / "fox.html"
    result = run(case, store, to)
    assert result.exit_code == 0, result.output
    return to.read_bytes()


@pytest.fixture(scope="module")
def page(written: bytes) -> Page:
    return Page(written)


def the(store: object, concept: str = "fox") -> Edit:
    edit = latest_edit(str(store), concept)
    assert edit is not None
    return edit


def test_a_page_fetches_nothing_and_is_whole(written: bytes, page: Page) -> None:
    assert written.startswith(b"<!doctype html>\n<html lang=")
    links = [attrs[name] for _, attrs in page.tags for name in ("src", "href") if name in attrs]
    assert len(links) > 20
    assert {link for link in links if not re.match(r"data:|#", link)} == set()
    assert not re.search(r"url\(|@import|https?://|\bsrcset=|\bon[a-z]+=", written.decode())
    assert len(page.all("script")) == 1
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'; img-src data:;")
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    for _, attrs in page.tags:
        assert set(attrs.get("aria-labelledby", "").split()) <= set(ids)


def test_a_page_is_for_everyone(page: Page) -> None:
    assert page.all("a")[0] == {"class": "skip", "href": "#main"}
    assert len(page.all("h1")) == len(page.all("main")) == 1
    assert len(page.all("caption")) == len(page.all("table")) >= 4
    assert all(attrs["scope"] in ("col", "row") for attrs in page.all("th"))
    assert all(attrs["alt"] for attrs in page.all("img"))
    assert all(attrs.get("aria-label") for attrs in page.all("input"))
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in page.of_class("chart"))
    assert len(page.of_class("sort")) == sum("aria-sort" in attrs for attrs in page.all("th")) > 10


def test_every_number_of_the_store_is_in_the_page(store: Path, page: Page) -> None:
    edit = the(store)
    exact = {attrs[name] for _, attrs in page.tags for name in ("data-sort", "data-low", "data-high") if name in attrs}
    rows = [row for row in tables.read(store, "evaluations").to_pylist() if row["edit"] == edit.id]
    assert {row["metric"] for row in rows} == {"classifier", "nudenet"}
    assert len(rows) == 7  # one of a hostile file, and of the catalog's two parts: two metrics, two groups of others
    for row in rows:
        names = [f"{when}{end}" for when in ("before", "after", "change") for end in ("", "_low", "_high")]
        assert {str(row[name]) for name in (*names, "n")} <= exact
        assert f"sha256 {row['detector'][:12]}" in page.text
    judged = [row for row in tables.read(store, "sweeps").to_pylist() if row["erased"] is not None]
    assert len(judged) == 2
    for row in judged:
        assert {str(row[name]) for name in ("sparsity", "t_hat", "vote_share", "density", "erased", "kept")} <= exact
    report = json.loads(edit.read("report.json"))
    for site in report["sites"].values():
        assert {str(site[name]) for name in ("pruned", "weights", "width")} | {
            str(site["pruned"] / site["weights"])
        } <= exact
    for part in ("concept", "others"):
        assert {str(report["evaluation"][part][name]) for name in ("before", "after", "n")} <= exact
    for name, entry in edit.manifest["files"].items():
        assert name in page.text
        assert entry["sha256"] in page.text
    model = edit.manifest["model"]
    for said in (
        edit.id,
        edit.digest,
        model["fingerprint"],
        edit.manifest["created"],
        *edit.manifest["versions"].values(),
    ):
        assert str(said) in page.text
    assert "Never take this page for a proof of removal" in " ".join(page.text.split())
    assert "No attack was run on this edit" in page.text


def test_a_hostile_prompt_is_text(written: bytes, page: Page) -> None:
    assert HOSTILE in page.text
    assert b"<script>alert" not in written
    assert any(HOSTILE in attrs["alt"] for attrs in page.all("img"))


def test_what_a_detector_flags_is_covered_and_nothing_else(page: Page) -> None:
    pairs = [attrs for attrs in page.of_class("pair") if "covered" in attrs["class"]]
    assert (len(pairs), len(page.of_class("pair"))) == (2, 1 + 3 + 4 + 1)  # the second of the concept's and the others'
    assert len(page.of_class("reveal")) == 2
    assert sum("disabled" in attrs for attrs in page.of_class("slider")) == 2


def test_flags_of_unknown_places_cover_a_whole_set(case: Case, store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "store"))
    for path in (copy / "evaluations").glob("*.json"):
        document = json.loads(path.read_bytes())
        document["numbers"].pop("flagged", None)
        path.write_bytes(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())
    assert run(case, copy, tmp_path / "fox.html").exit_code == 0
    covered = [attrs["class"] for attrs in Page((tmp_path / "fox.html").read_bytes()).of_class("pair")]
    assert sum("covered" in names for names in covered) == 1 + 3 + 4  # the file was not shown to the detector


def test_concepts_of_nudity_are_explicit(case: Case, store: Path, tmp_path: Path) -> None:
    file = tmp_path / "nude.toml"
    file.write_text(CATALOG.replace('kind = "uneven"', 'kind = "nudity"'), "utf-8")
    assert explicit(the(store), load_catalog(file)["rose"])
    assert not explicit(the(store), load_catalog(case.catalog)["fox"])
    assert not explicit(the(store), None)


def test_equal_input_gives_equal_bytes(case: Case, store: Path, tmp_path: Path, written: bytes) -> None:
    assert run(case, store, tmp_path / "again.html").exit_code == 0
    assert (tmp_path / "again.html").read_bytes() == written
    moved = Path(shutil.copytree(store, tmp_path / "moved"))
    assert run(case, moved, tmp_path / "moved.html").exit_code == 0
    assert (tmp_path / "moved.html").read_bytes() == written


def test_without_evaluations_the_edits_own_images_are_shown(case: Case, root: str) -> None:
    make_edit(case, root)
    result = run(case, root, f"{root}/pages/fox.html", "--json")
    assert result.exit_code == 0, result.output
    data = place_at(f"{root}/pages/fox.html").get()
    assert data is not None
    document = json.loads(result.stdout)
    assert (document["pages"][0]["bytes"], document["pages"][0]["images"]) == (len(data), 7)
    page = Page(data)
    assert "No measurement is in the store: the first look is all there is" in page.text
    expected = load_catalog(case.catalog)["fox"].evaluation
    for one in (*expected.concept, *expected.others):
        assert one.prompt.text in page.text
    words = ["report", "fox", "--to", f"{root}/pages/other.html", "--store", root, "--no-prefect"]
    assert cli(*words).exit_code == 0  # with the bundled catalog, whose fox is another
    other = Page(place_at(f"{root}/pages/other.html").get() or b"")
    assert "The prompts' words are not in the store" in other.text
    assert expected.concept[0].prompt.text not in other.text


def test_an_edit_that_nobody_looked_at_has_a_page(case: Case, store: Path, tmp_path: Path) -> None:
    assert run(case, store, tmp_path / "apple.html", "apple").exit_code == 0
    page = Page((tmp_path / "apple.html").read_bytes())
    assert page.all("img") == []
    for sentence in ("No images are in the store", "no judge has looked at this edit", "No sweep of this concept"):
        assert sentence in page.text


def test_a_combined_edit_has_a_page(case: Case, store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "store"))
    assert cli("combine", "both", "--erase", "fox,apple", "--store", copy, "--no-prefect").exit_code == 0
    result = run(case, copy, tmp_path / "both.html", "both")
    assert result.exit_code == 0, result.output
    assert "combined of apple@" in Page((tmp_path / "both.html").read_bytes()).text


def test_attacks_are_shown_where_some_were_run(case: Case, store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "store"))
    row = {"concept": "fox", "edit": the(store).id, "attack": "prompt-search", "before": 0.9, "before_low": 0.8,
           "before_high": 0.97, "after": 0.4375, "after_low": 0.31, "after_high": 0.55, "n": 16, "seed": 3,
           "budget": "200 queries", "url": "attacks/x.json"}  # fmt: skip
    tables.write_rows(copy, "attacks", [row, {**row, "edit": "0" * 16, "attack": "another"}])
    assert run(case, copy, tmp_path / "fox.html").exit_code == 0
    page = Page((tmp_path / "fox.html").read_bytes())
    exact = {attrs.get("data-sort") for attrs in page.all("td")}
    assert {"0.9", "0.4375", "16"} <= exact
    assert "prompt-search" in page.text
    assert "another" not in page.text
    assert "No attack was run" not in page.text


def test_images_that_are_gone_are_missed_aloud(case: Case, store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "store"))
    shutil.rmtree(copy / "rankings")
    png = next(path for path in sorted((copy / "images").rglob("*.png")))
    png.unlink()
    assert run(case, copy, tmp_path / "fox.html").exit_code == 0
    text = Page((tmp_path / "fox.html").read_bytes()).text
    assert "1 pair of images is not in the store any more" in text
    assert "The ranking is not in the store any more" in text
    shutil.rmtree(copy / "images")
    assert run(case, copy, tmp_path / "own.html").exit_code == 0
    assert len(Page((tmp_path / "own.html").read_bytes()).of_class("pair")) == 8  # those of the edit itself


def test_fewer_images_are_spread_over_the_prompts(case: Case, store: Path, tmp_path: Path) -> None:
    assert run(case, store, tmp_path / "fox.html", "--images", "2").exit_code == 0
    assert "2 of 4 are shown, spread evenly over the list" in Page((tmp_path / "fox.html").read_bytes()).text


def test_an_index_has_every_concept_and_its_page(case: Case, store: Path, root: str) -> None:
    result = run(case, store, f"{root}/pages", "--all")
    assert result.exit_code == 2  # not with a concept
    result = cli("report", "--all", "--to", f"{root}/pages", "--store", store, "--no-prefect", "--json")
    assert result.exit_code == 0, result.output
    index = Page(place_at(f"{root}/pages/index.html").get() or b"")
    assert [attrs["href"] for attrs in index.all("a")] == ["#main", "apple.html", "fox.html"]
    assert len(index.of_class("thumb")) == 1
    assert sum("aria-sort" in attrs for attrs in index.all("th")) == 7
    document = json.loads(result.stdout)
    assert [one["concept"] for one in document["pages"]] == ["apple", "fox"]
    fox = Page(place_at(f"{root}/pages/fox.html").get() or b"")
    assert [attrs["href"] for attrs in fox.all("a")][1] == "index.html"
    only = cli("report", "--catalog", "demo", "--to", f"{root}/demo", "--store", store, "--no-prefect")
    assert only.exit_code == 0, only.output
    assert "Erased concepts of demo" in Page(place_at(f"{root}/demo/index.html").get() or b"").text
    assert [page_name(slug) for slug in ("fox", "index", "../x")] == ["fox.html", "index-concept.html", "%2E.%2Fx.html"]


def test_a_damaged_edit_is_named_and_leaves_the_others_alone(case: Case, store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "store"))
    flip(place_at(f"{copy}/edits/{the(store, 'apple').path.url.partition('/edits/')[2]}/report.json"))
    result = cli("report", "--all", "--to", tmp_path / "pages", "--store", copy, "--no-prefect")
    assert result.exit_code == 1
    assert "apple has no page" in result.stderr
    assert "wrong sha256" in " ".join(Page((tmp_path / "pages" / "index.html").read_bytes()).text.split())
    assert (tmp_path / "pages" / "fox.html").exists()
    assert run(case, copy, tmp_path / "apple.html", "apple").exit_code == 1
    assert not (tmp_path / "apple.html").exists()


def test_damaged_measurements_are_not_shown(case: Case, store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "store"))
    path = sorted((copy / "evaluations").glob("*.json"))[0]
    path.write_bytes(path.read_bytes().replace(b'"steps":4', b'"steps":5'))
    result = run(case, copy, tmp_path / "fox.html")
    assert result.exit_code == 1
    assert "it is not what its address says" in result.stderr


def test_bad_input_is_one_sentence(case: Case, store: Path, tmp_path: Path) -> None:
    def bad(says: str, to: object, *words: object) -> None:
        refused(run(case, store, to, *words), says)

    bad("to is '.*fox.txt'; the page of a concept is one file, such as fox.html", tmp_path / "fox.txt")
    bad("there is no edit of cat in", tmp_path / "cat.html", "cat")
    bad("fox has no edit 12345678", tmp_path / "fox.html", "--edit", "12345678")
    bad("fox and --all: give one concept for its page", tmp_path, "--all")
    (tmp_path / "folder.html").mkdir()
    bad("folder.html cannot be written: .*; give another place with --to", tmp_path / "folder.html")
    words = ["--store", store, "--no-prefect"]
    refused(cli("report", "--to", tmp_path, *words), "report of what")
    refused(cli("report", "--all", "--to", tmp_path / "x.html", *words), "an index and its pages go into a directory")
    refused(cli("report", "--all", "--edit", "12345678", "--to", tmp_path, *words), "edit 12345678 is of one concept")
    refused(cli("report", "fox", "--catalog", "nowhere.toml", "--to", tmp_path / "x.html", *words), "no catalog at")
    empty = ["--store", tmp_path / "empty", "--no-prefect"]
    refused(cli("report", "--all", "--to", tmp_path, *empty), "there is no edit in .*; run conceptprune erase first")


def test_prompts_stay_out_of_the_terminal(case: Case, store: Path, tmp_path: Path) -> None:
    result = run(case, store, tmp_path / "fox.html")
    assert "script" not in result.output
    assert "a fox" not in result.output


def test_a_tracked_run_writes_the_same(case: Case, store: Path, tmp_path: Path, prefect_server: None) -> None:
    def asked(to: Path, **options: Any) -> ReportRequest:
        return ReportRequest(to=str(to), store=str(store), catalog=str(case.catalog), **options)

    plain = report_all(plan_report(asked(tmp_path / "a", every=True)), Steps())
    tracked = ReportOutcome(**report(asked(tmp_path / "b", every=True)))
    assert [one["sha256"] for one in plain.pages] == [one["sha256"] for one in tracked.pages]
    assert plain.index is not None
    assert tracked.index is not None
    assert plain.index["sha256"] == tracked.index["sha256"]


def test_prompts_are_kept_beside_measurements(case: Case, tmp_path: Path) -> None:
    make_edit(case, tmp_path / "store", evaluate=False)
    evaluate(case, tmp_path / "store", "--metrics", "classifier")
    names = {json.loads(path.read_bytes())["prompts"]["sha256"] for path in (tmp_path / "store/evaluations").iterdir()}
    assert {path.stem for path in (tmp_path / "store" / "prompts").iterdir()} == names
    bundled = ["report", "fox", "--to", tmp_path / "fox.html", "--store", tmp_path / "store", "--no-prefect"]
    assert cli(*bundled).exit_code == 0  # the words come from the store: the bundled catalog's fox is another
    first = load_catalog(case.catalog)["fox"].evaluation.concept[0].prompt.text
    assert first in Page((tmp_path / "fox.html").read_bytes()).text
    path = next((tmp_path / "store" / "prompts").iterdir())
    path.write_bytes(path.read_bytes() + b" ")
    assert cli(*bundled).exit_code == 1
