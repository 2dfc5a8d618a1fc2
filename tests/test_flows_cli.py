"""The command line: what it teaches, what it refuses, and what it prints where."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from flows.cli import app
from tests import erase_cases
from tests.erase_cases import CATALOG, Case, files


def cli(*words: object, **environment: str) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": "200", "NO_COLOR": "1", **environment})


def refused(result: Result, says: str) -> None:
    """Bad input: exit code 2, nothing on stdout, one sentence on stderr."""
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stdout == ""
    assert re.fullmatch(r"conceptprune: [^\n]+\n", result.stderr), result.stderr
    assert re.search(says, result.stderr), result.stderr


@pytest.fixture(scope="module")
def erased(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the fox erased."""
    store = tmp_path_factory.mktemp("erased")
    assert cli("erase", "fox", *case.options(store), "--no-prefect").exit_code == 0
    return store


@pytest.mark.parametrize(
    ("words", "teaches"),
    [
        (["--help"], ["conceptprune erase fox", "conceptprune rethreshold fox --sparsity 0.03", "show"]),
        (["erase", "--help"], ["--sparsity", "0.02 or 2%", "--t-hat", "--no-evaluate", "--json", "Run it again"]),
        (["rethreshold", "--help"], ["--sparsity", "without the model", "latest edit"]),
        (["show", "--help"], ["--store", "--json"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_help_teaches(words: list[str], teaches: list[str]) -> None:
    result = cli(*words)
    assert result.exit_code == 0
    text = " ".join(re.sub(r"[│╭╰─╮╯]", " ", result.stdout).split())
    assert [phrase for phrase in teaches if phrase not in text] == []


def test_every_option_says_what_it_is() -> None:
    import typer.main

    for command in typer.main.get_command(app).commands.values():  # type: ignore[attr-defined]
        for option in command.params:
            assert getattr(option, "help", None), f"{command.name} {option.name}"


BAD = [
    (["no-such-concept"], "no concept 'no-such-concept' in catalog tiny; it has fox, apple, photo, rose"),
    (["fox", "--sparsity", "0"], "sparsity is 0; it must be above 0"),
    (["fox", "--sparsity", "1.5"], "sparsity is 1.5; it must be above 0 and at most 1"),
    (["fox", "--sparsity", "x"], "sparsity 'x' is not a number; give a share such as 0.05, or 5%"),
    (["fox", "--sparsity", "nan"], "^conceptprune: sparsity is 'NaN': Input should be a finite number"),
    (["fox", "--t-hat", "999"], "t_hat is 999, but only 3 steps are captured"),
    (["fox", "--t-hat", "0"], "t_hat is 0: Input should be greater than or equal to 1"),
    (["fox", "--vote-share", "1"], "vote_share is 1.0: Input should be less than 1"),
    (["fox", "--branch", "left"], "^conceptprune: branch is 'left': Input should be 'both', 'cond' or 'uncond'"),
    (["fox", "--branch", "uncond", "--guidance", "1"], "branch uncond is not run at this guidance"),
    (["fox", "--steps", "0"], "steps is 0: Input should be greater than or equal to 1"),
    (["fox", "--window", "99"], "window is 99, but 4 steps are run"),
    (["fox", "--size", "33"], "size is 33: Input should be a multiple of 8"),
    (["fox", "--guidance", "-1"], "guidance is -1.0: Input should be greater than or equal to 0"),
    (["fox", "--dtype", "int8"], "dtype is 'int8': Input should be 'float32', 'float16' or 'bfloat16'"),
    (["fox", "--model", "./nowhere"], "no model at ./nowhere; give a folder"),
    (["fox", "--model", "some/hub-id"], "some/hub-id is not a folder here; for a hub id give --revision"),
    (["fox", "--model", "some/hub-id", "--revision", "main"], "revision 'main' is not a commit"),
    (["fox", "--judge", "nowhere"], "no judge at nowhere: .*; give --judge or --no-evaluate"),
    (["fox", "--catalog", "nowhere.toml"], "no catalog at nowhere.toml"),
    (["fox", "--store", "gs://bucket"], "gs://"),
]


@pytest.mark.parametrize(("words", "says"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_is_one_sentence_and_writes_nothing(case: Case, tmp_path: Path, words: list[str], says: str) -> None:
    store = tmp_path / "store"
    refused(cli("erase", *case.options(store), *words, "--no-prefect"), says)
    assert not store.exists()


def test_fault_9_a_sparsity_that_prunes_nothing_is_refused_with_one_that_works(case: Case, tmp_path: Path) -> None:
    """The reference code floors it to no candidates and empties layers without a word."""
    store = tmp_path / "store"
    words = ["erase", "fox", *case.options(store), "--no-prefect", "--no-evaluate", "--sparsity"]
    result = cli(*words, "0.00001")
    refused(
        result, r"sparsity 0\.00001 gives no candidate in unet\.\S+ \(width 32\); the smallest that works .* 0\.03125"
    )
    assert not store.exists()
    assert cli(*words, "0.03125").exit_code == 0


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.bin", "unet/pipeline.py", "pickled.ckpt"])
def test_a_model_with_pickles_or_code_is_refused(case: Case, tmp_path: Path, name: str) -> None:
    model, store = tmp_path / "model", tmp_path / "store"
    shutil.copytree(case.model, model)
    (model / name).write_bytes(b"")
    result = cli("erase", "fox", *case.options(store), "--model", model, "--no-prefect")
    refused(result, f"holds {name}: pickles and code are never loaded")
    assert not store.exists()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[capture]", "[capture", "is not TOML: .*line"),
        ('kind = "style"', 'kind = "stile"', "concept apple has kind 'stile', which has no recipe"),
        ("steps = 4", "stops = 4", r"line 6: \[capture\] has stops, which is unknown; did you mean steps\?"),
        ("steps = 4", 'steps = "four"', r"line 6: \[capture\]: steps is 'four': .*integer"),
        ("t_hat = 2", "t_hat = 2.5", r"line 14: \[prune\]: t_hat is 2.5: .*integer"),
        ("t_hat = 2", "that = 2", r"line 14: \[prune\] has that, which is unknown; did you mean t_hat\?"),
        ("t_hat = 2", 't_hat = 2\nkinds = ["attn_k"]', r"\[prune\] of catalog \S+: kinds are attn_k, but ffn sites"),
        (
            "t_hat = 2",
            "t_hat = 2\nvotes = 1",
            r"line 15: \[prune\] has votes, which is unknown; did you mean vote_share\?",
        ),
    ],
)
def test_a_broken_catalog_is_refused(case: Case, tmp_path: Path, old: str, new: str, says: str) -> None:
    catalog, store = tmp_path / "broken.toml", tmp_path / "store"
    catalog.write_text(CATALOG.replace(old, new, 1), "utf-8")
    result = cli("erase", "fox", *case.options(store), "--catalog", catalog, "--no-prefect")
    refused(result, says)
    assert "broken.toml" in result.stderr
    assert not store.exists()


def test_rethreshold_and_show_before_an_erasure(case: Case, tmp_path: Path) -> None:
    store = tmp_path / "store"
    for command in ("rethreshold", "show"):
        refused(cli(command, "fox", "--store", store), f"no edit of fox in {store}; run conceptprune erase fox first")
    assert not store.exists()


@pytest.mark.parametrize("name", ["model", "revision", "catalog", "judge", "device", "batch"])
def test_a_rethreshold_that_draws_nothing_refuses_what_only_drawing_reads(erased: Path, name: str) -> None:
    before = files(erased)
    result = cli("rethreshold", "fox", "--store", erased, "--sparsity", "0.1", f"--{name}", "1", "--no-prefect")
    refused(result, f"--{name} only matters for drawing images; add --evaluate, or leave it out")
    assert files(erased) == before


def test_a_bad_setting_names_its_variable(case: Case, tmp_path: Path) -> None:
    for command in ("erase", "rethreshold", "show"):
        refused(cli(command, "fox", CONCEPTPRUNE_BATCH="many"), "CONCEPTPRUNE_BATCH is 'many': .*integer")
    refused(cli("erase", "fox", *case.options(tmp_path), CONCEPTPRUNE_BATCH="0"), "CONCEPTPRUNE_BATCH is '0'")


def test_settings_come_from_the_environment(case: Case, erased: Path) -> None:
    paths = {f"CONCEPTPRUNE_{name.upper()}": str(getattr(case, name)) for name in ("model", "catalog", "judge")}
    before = {name for name in files(erased) if name.endswith("manifest.json")}
    result = cli("erase", "fox", "--no-prefect", "--json", CONCEPTPRUNE_STORE=str(erased), **paths)
    assert result.exit_code == 0, result.stderr
    assert Path(json.loads(result.stdout)["url"]).is_relative_to(erased)
    assert {name for name in files(erased) if name.endswith("manifest.json")} == before
    assert json.loads(cli("show", "fox", "--json", CONCEPTPRUNE_STORE=str(erased)).stdout)["concept"] == "fox"


def test_json_is_one_document_on_stdout(case: Case, tmp_path: Path) -> None:
    result = cli("erase", "fox", *case.options(tmp_path), "--no-prefect", "--json")
    found = json.loads(result.stdout)
    assert set(found) == {"url", "edit", "concept", "sheet", "prune", "report"}
    assert Path(found["sheet"]).is_file()
    assert found["report"] == json.loads((Path(found["url"]) / "report.json").read_bytes())
    assert result.stderr.startswith("capture: 6 prompts x 3 steps, 4 sites, ")
    assert "a fox" not in result.stderr  # prompts stay out of logs
    again = cli("rethreshold", "fox", "--store", tmp_path, "--sparsity", "0.5", "--no-prefect", "--json")
    assert json.loads(again.stdout)["rows"][0]["sparsity"] == 0.5
    shown = json.loads(cli("show", "fox", "--store", tmp_path, "--json").stdout)
    assert [edit["latest"] for edit in shown["edits"]] in ([False, True], [True, False])
    assert {capture["role"]: capture["complete"] for capture in shown["captures"]} == {"reference": 3, "target": 3}


def test_people_see_where_it_is_and_what_changed(case: Case, erased: Path) -> None:
    result = cli("erase", "fox", *case.options(erased), "--no-prefect")
    assert re.search(r"pruned [\d,]+ of [\d,]+ weights of 4 sites", result.stdout)
    url = re.search(r"edit +(\S+)", result.stdout)
    assert url
    assert Path(url[1]).is_dir()
    sheet = re.search(r"images +(\S+)", result.stdout)
    assert sheet
    assert Path(sheet[1]).is_file()
    shown = cli("show", "fox", "--store", erased).stdout
    for phrase in ("3/3", "* the latest", "unet.mid_block.attentions.0.transformer_blocks.0.ff.net.2", url[1]):
        assert phrase in shown


def test_fault_15_no_evaluate_is_a_real_flag(case: Case, tmp_path: Path) -> None:
    """In the reference code `--dbg False` is true."""
    words = ["erase", "fox", *case.options(tmp_path), "--no-prefect", "--json"]
    found = json.loads(cli(*words, "--no-evaluate").stdout)
    assert found["report"]["evaluation"] is found["sheet"] is None
    assert not (Path(found["url"]) / "images").exists()
    assert json.loads(cli(*words, "--evaluate").stdout)["report"]["evaluation"]
    wrong = cli(*words, "--no-evaluate", "False")
    assert wrong.exit_code == 2
    assert "False" in wrong.stderr
    assert wrong.stdout == ""


@pytest.mark.slow  # a process that starts Prefect's server
def test_with_prefect_stdout_is_one_document_too(case: Case, tmp_path: Path) -> None:
    words = ["erase", "fox", *case.options(tmp_path), "--no-evaluate", "--json"]
    code, out, err = erase_cases.run(*words, PREFECT_LOGGING_LEVEL="INFO")
    assert code == 0, err
    found = json.loads(out)
    assert erase_cases.manifest(found["url"])["edit"] == found["edit"]
    assert "a fox" not in err  # prompts stay out of logs
