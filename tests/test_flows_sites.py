"""The command sites, and which sites an edit prunes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flows.config import CatalogRequest
from flows.erase_concept import erase
from flows.plan import make_plan
from flows.rethreshold import plan_cuts
from flows.steps import Steps
from storage.edits import read_edit_at
from storage.models import ModelStore
from tasks.diffusion.headers import read_sites
from tasks.diffusion.spec import TierSpec
from tests.erase_cases import ROOT, Case
from tests.test_flows_cli import cli, refused

ALL = "ffn,ffn_in,attn_k,attn_v,text"


def test_sites_are_listed_with_what_they_cost(case: Case) -> None:
    result = cli("sites", case.model, "--json", "--steps", "10")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["family"], found["kinds"]) == ("unet", ["attn_k", "attn_v", "ffn", "ffn_in", "text"])
    assert len(found["sites"]) == 4 * 4 + 1  # four transformers, a text encoder of one layer
    rows = {row["name"]: row for row in found["sites"]}
    mid = "unet.mid_block.attentions.0.transformer_blocks.0"
    feed = rows[f"{mid}.ff.net.2"]
    assert feed["weights"] == feed["width"] * feed["rows"]
    assert feed["bytes"] == 10 * 2 * 4 * feed["width"]
    keys = [row for row in found["sites"] if row["kind"] in ("attn_k", "attn_v")]
    assert sum(row["bytes"] for row in keys) == 2 * 4 * keys[0]["width"]  # one of eight is stored, once


def test_the_table_has_the_sums(case: Case) -> None:
    result = cli("sites", case.model, "--kinds", "ffn", "--match", "unet.up_blocks*")
    assert result.exit_code == 0
    assert re.search(r"2 sites, [\d,]+ weights; [\d.]+ MB of energies a prompt at 50 steps", result.stdout)
    assert "unet.up_blocks.1.attentions.0.transformer_blocks.0.ff.net.2" in result.stdout
    assert "mid_block" not in result.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--match", "nothing*"], r"none of the 17 sites of .* is named nothing\*; leave --match out to see them"),
        (["--steps", "0"], "steps is 0; it must be 1 or more"),
        (["--kinds", "router"], "family unet has no site kind router; it has attn_k, attn_v, ffn, ffn_in, text"),
    ],
)
def test_what_is_not_there_is_said(case: Case, words: list[str], says: str) -> None:
    refused(cli("sites", case.model, *words), says)


def test_listing_needs_no_torch(case: Case) -> None:
    code = (
        "import sys; from flows.config import Common; from flows.site_list import list_sites; "
        f"list_sites(Common(model={str(case.model)!r}), None, None, None); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_kinds_and_patterns_choose_what_is_pruned(case: Case, tmp_path: Path) -> None:
    asked = case.request(tmp_path, evaluate=False, kinds=ALL, include="unet.*", exclude="*mid_block*")
    plan = make_plan(asked)
    edit = read_edit_at(erase(plan, Steps()).url)
    captured = {site.name for site in plan.capture.sites}
    assert set(edit.masks()) == {name for name in captured if name.startswith("unet.") and "mid_block" not in name}
    model = edit.manifest["model"]["key"]
    assert model.endswith("-attn_k+attn_v+ffn+ffn_in+text")
    assert {site.name for site in ModelStore(tmp_path, model).sites()} == captured

    def chosen(**options: str) -> set[str]:
        wanted = CatalogRequest.of(
            asked.model_copy(update={"include": None, "exclude": None, "kinds": None, **options})
        )
        return {site.name for site in plan_cuts(wanted).cuts["fox"].sites}

    assert chosen() == set(edit.masks())  # what is not said stays as in the latest edit
    assert chosen(kinds="text", include="*", exclude="") == {
        name for name in captured if name.startswith("text_encoder")
    }
    with pytest.raises(ValueError, match=r"no site of the kinds ffn is named text\*; see conceptprune sites"):
        chosen(kinds="ffn", include="text*", exclude="")
    with pytest.raises(ValueError, match="include and exclude leave no site to prune"):
        chosen(include="unet.mid*", exclude="unet.mid*")


def test_what_is_not_captured_is_not_pruned(case: Case, tmp_path: Path) -> None:
    erase(make_plan(case.request(tmp_path, evaluate=False)), Steps())
    with pytest.raises(ValueError, match="kinds attn_v are not captured, only ffn; capture them too"):
        plan_cuts(CatalogRequest.of(case.request(tmp_path, evaluate=False, kinds="attn_v")))


def test_a_tier_is_of_sites_that_change_with_the_step(case: Case, tmp_path: Path) -> None:
    sites = read_sites(case.model, tuple(ALL.split(",")))
    chosen = TierSpec("pooled", ("*",)).chosen(sites)
    assert {site.kind for site in chosen} == {"ffn", "ffn_in"}
    with pytest.raises(ValueError, match=r"\*attn2\* names sites that see the same at every step"):
        TierSpec("pooled", ("*attn2*",)).chosen(sites)
