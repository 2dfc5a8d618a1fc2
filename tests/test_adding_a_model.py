"""docs/adding-a-model.md, followed literally for the sixth family."""

from __future__ import annotations

import contextlib
import io
import re
import textwrap
from pathlib import Path

import pytest

from tasks.diffusion import headers
from tasks.diffusion.families import FAMILIES, Family, SitePattern
from tasks.diffusion.families.pixart import PIXART
from tasks.diffusion.headers import read_sites
from tests import families
from tests.families_sites import EXPECTED

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "adding-a-model.md").read_text("utf-8")
PRINTED = ["transformer_blocks.0.ff.net.0.proj", "transformer_blocks.0.ff.net.2", "transformer_blocks.0.attn2.to_k",
           "transformer_blocks.0.attn2.to_v"]  # fmt: skip


def block(after: str) -> str:
    """The indented code that follows a line of the page."""
    rest = PAGE.partition(after)[2]
    found = re.search(r"\n\n((?:    .*\n|\n)+)", rest)
    assert found, after
    return textwrap.dedent(found[1])


def test_step_1_prints_the_linears() -> None:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(block("**1. Look at the modules.**"), {})
    assert all(re.search(rf"^{re.escape(name)} \(\d+, \d+\)$", out.getvalue(), re.MULTILINE) for name in PRINTED)
    assert all(f"`{name}`" in PAGE for name in PRINTED)


def test_step_2_is_the_family_and_all_that_a_model_of_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = {"Family": Family, "SitePattern": SitePattern}
    exec(block("**2. Write the rows**"), names)
    written = names["PIXART"]
    assert written == PIXART
    families.build("pixart").save_pretrained(tmp_path)
    others = tuple(family for family in FAMILIES if family.name != "pixart")
    monkeypatch.setattr(headers, "FAMILIES", others)
    with pytest.raises(
        ValueError, match=r"no denoiser of a known architecture \(known: .*\); .*docs/adding-a-model.md"
    ):
        read_sites(tmp_path, ("ffn",))
    monkeypatch.setattr(headers, "FAMILIES", (*others, written))  # step 3
    for kind, sites in EXPECTED["pixart"].items():  # step 4
        assert [site.name for site in read_sites(tmp_path, (kind,))] == sorted(sites)
