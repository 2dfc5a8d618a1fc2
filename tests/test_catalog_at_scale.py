"""Forty-four concepts of the bundled model in an object store: from nothing, again, and with one more."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import demo
from storage.activations import captured_sets
from storage.roots import Root
from tests import erase_cases

pytestmark = [pytest.mark.slow, pytest.mark.s3, pytest.mark.timeout(1500)]

PAIRS = 4  # of prompts a set; the catalog has 40
LAST = '\n[[concepts]]\nslug = "blob"\nkind = "style"\n'


def run(store: str, catalog: Path) -> tuple[dict, float]:
    """Erase a catalog in a process of its own: its JSON document, and the seconds that it took."""
    began = time.monotonic()
    words = ["catalog", "erase", catalog, "--store", store, "--no-evaluate", "--no-prefect", "--json"]
    code, out, err = erase_cases.run(*words, limit=1200)
    assert code == 0, err
    return json.loads(out), time.monotonic() - began


def test_a_catalog_runs_from_nothing_again_and_with_one_more(
    tmp_path: Path, s3_root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = demo.SHARED_CATALOG.read_text("utf-8").replace("pairs = 40", f"pairs = {PAIRS}")
    assert text.endswith(LAST.lstrip("\n")) or text.endswith(LAST)
    catalog = tmp_path / "shared.toml"
    catalog.write_text(text.removesuffix(LAST), "utf-8")

    first, took = run(s3_root, catalog)
    [profile] = Root(s3_root).path("activations").folders()
    assert (len(first["rows"]), first["made"], first["failed"]) == (43, 43, {})
    assert first["captured"] == len(captured_sets(s3_root, profile)) == 45  # 43 targets, 2 references

    again, rerun = run(s3_root, catalog)
    assert (again["captured"], again["made"], again["rows"]) == (0, 0, first["rows"])

    catalog.write_text(text, "utf-8")
    more, _ = run(s3_root, catalog)
    assert (more["captured"], more["made"], len(more["rows"])) == (1, 1, 44)
    with capsys.disabled():
        print(
            f"\n44 concepts have 88 roles and took {first['captured'] + more['captured']} captures; "
            f"from nothing {took:.0f} s, again {rerun:.1f} s"
        )
    assert rerun < took / 2
