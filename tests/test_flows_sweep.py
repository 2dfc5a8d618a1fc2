"""A sweep: densities that are those of real masks, judged points that are real edits, and a choice with its reason."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from flows import sweep as sweep_flow
from flows.choosing import Score
from flows.config import CatalogRequest
from flows.erase_concept import erase
from flows.plan import make_plan
from flows.rethreshold import cut_all, plan_cuts
from flows.steps import Steps
from flows.sweep import SweepRequest, plan_sweep, sweep_all
from flows.sweep_outcome import SweepOutcome, SweepPoint, choose, spread, sweep_of
from flows.tabling import EditRow
from storage import tables
from storage.listing import latest_edit, list_edits
from tests import erase_cases
from tests.erase_cases import CATALOG, ROOT, Case, files
from tests.test_flows_cli import cli, refused
from tests.test_flows_rethreshold import WITHOUT_TORCH

GRID: dict[str, Any] = {"sparsities": ["0.1", "50%", "0.3"], "t_hats": [3, 1, 2], "vote_shares": [0.5, 0.0]}


def request(case: Case, store: Path, **options: Any) -> SweepRequest:
    return SweepRequest(**{**case.request(store).model_dump(), **GRID, **options})


def run(case: Case, store: Path, **options: Any) -> SweepOutcome:
    """Sweep without Prefect."""
    return sweep_all(plan_sweep(request(case, store, **options)), Steps())


@pytest.fixture(scope="module")
def captured(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one edit of the fox, for copying."""
    store = tmp_path_factory.mktemp("captured")
    erase(make_plan(case.request(store, evaluate=False)), Steps())
    return store


@pytest.fixture
def store(captured: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(captured, tmp_path / "store"))


@pytest.fixture(scope="module")
def judged(case: Case, captured: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepOutcome]:
    """A store with a sweep of which three points were judged, to be read only."""
    store = Path(shutil.copytree(captured, tmp_path_factory.mktemp("judged") / "store"))
    return store, run(case, store, images=3)


def test_densities_are_those_of_the_edits_that_the_points_are(case: Case, store: Path) -> None:
    points = run(case, store).points
    settings = [(point.sparsity, point.t_hat, point.vote_share) for point in points]
    assert settings == [(k, t, s) for k in ("0.1", "0.3", "0.5") for t in (1, 2, 3) for s in (0.0, 0.5)]
    for point in points:
        prune = {"sparsity": point.sparsity, "t_hat": point.t_hat, "vote_share": point.vote_share}
        asked = CatalogRequest.of(case.request(store, evaluate=False, **prune))
        [row] = cut_all(plan_cuts(asked), Steps()).rows
        assert (row.pruned, row.weights, row.density) == (point.pruned, point.weights, point.density)


def test_what_is_not_listed_stays_as_in_the_latest_edit(case: Case, store: Path) -> None:
    points = run(case, store, sparsities=None, vote_shares=None).points
    assert [(point.sparsity, point.t_hat, point.vote_share) for point in points] == [("0.2", t, 0.0) for t in (1, 2, 3)]
    assert len(run(case, store, branch="cond").points) == 18


def test_densities_alone_choose_nothing_and_make_no_edit(case: Case, store: Path) -> None:
    before = files(store / "edits")
    outcome = run(case, store)
    assert files(store / "edits") == before
    assert (outcome.chosen, outcome.command, outcome.judged) == (None, None, [])
    assert outcome.why == "densities alone cannot choose a point: draw and judge some with --images 6"
    assert set(outcome.charts) == {"density"}


def test_neither_torch_nor_the_model_is_needed(case: Case, store: Path, tmp_path: Path) -> None:
    """The model's folder is gone, and so are the catalog and the judge."""
    grid = ["--sparsity", "0.1,50%", "--t-hat", "1,3", "--vote-share", "0,0.5"]
    words = ["sweep", "fox", *grid, "--store", str(store), "--no-prefect", "--json"]
    gone = {f"CONCEPTPRUNE_{name}": str(tmp_path / "gone") for name in ("MODEL", "CATALOG", "JUDGE")}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words],
        cwd=ROOT, env={**os.environ, **gone}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1]) == []
    found = json.loads(done.stdout)
    assert [point["pruned"] for point in found["points"]] == [
        point.pruned for point in run(case, store, sparsities=["0.1", "0.5"], t_hats=[1, 3]).points
    ]
    assert sweep_of(found).as_json() == found


def test_charts_and_rows_are_in_the_store(case: Case, judged: tuple[Path, SweepOutcome]) -> None:
    store, outcome = judged
    assert {name: Path(url).relative_to(store).as_posix() for name, url in outcome.charts.items()} == {
        name: f"plots/fox/sweep-{outcome.sweep}-{name}.png" for name in ("density", "tradeoff")
    }
    for url in outcome.charts.values():
        with Image.open(url) as image:
            assert image.size > (300, 200)
    rows = tables.read(store, "sweeps").to_pylist()
    assert len(rows) == 18
    assert {row["sweep"] for row in rows} == {outcome.sweep}
    by_point = {(row["sparsity"], row["t_hat"], row["vote_share"]): row for row in rows}
    for point in outcome.points:
        row = by_point[float(point.sparsity), point.t_hat, point.vote_share]
        assert (row["pruned"], row["density"], row["chosen"]) == (point.pruned, point.density, point.chosen)
        assert (row["edit"], row["erased"], row["kept"]) == (
            (point.row.edit, point.erased, point.kept) if point.row else (None, None, None)
        )


def test_judged_points_are_real_edits_and_the_pointer_stays(
    case: Case, captured: Path, judged: tuple[Path, SweepOutcome], tmp_path: Path
) -> None:
    store, outcome = judged
    assert len(outcome.judged) == 3
    latest, before = latest_edit(store, "fox"), latest_edit(captured, "fox")
    assert latest
    assert before
    assert latest.id == before.id
    other = Path(shutil.copytree(captured, tmp_path / "other"))
    for point in outcome.judged:
        assert point.row
        prune = {"sparsity": point.sparsity, "t_hat": point.t_hat, "vote_share": point.vote_share}
        [row] = cut_all(plan_cuts(CatalogRequest.of(case.request(other, **prune))), Steps()).rows
        one, same = erase_cases.manifest(point.row.url), erase_cases.manifest(row.url)
        assert one["edit"] == same["edit"]
        for found in (one, same):
            found["files"].pop("report.json")  # it tells seconds
        assert one["files"] == same["files"]  # with every image


def test_what_the_untouched_model_draws_is_drawn_once(case: Case, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.diffusion import pipelines

    drawn: list[int] = []
    generate = pipelines.generate

    def counted(pipe: Any, prompts: Sequence[Any], spec: Any) -> Any:
        drawn.append(len(prompts))
        return generate(pipe, prompts, spec)

    monkeypatch.setattr(pipelines, "generate", counted)
    run(case, store, images=3)
    assert sum(drawn) == 7 + 3 * 7  # 3 prompts of the fox and 4 of others: once before, and after each of three edits


def test_a_rerun_adds_nothing(case: Case, judged: tuple[Path, SweepOutcome]) -> None:
    store, first = judged
    before = {name: digest for name, (digest, _) in files(store).items()}
    again = run(case, store, images=3, sparsities=["0.5", "0.3", "0.10", "10%"])  # the same grid in other words
    assert again == first
    assert {name: digest for name, (digest, _) in files(store).items()} == before


def test_more_images_go_on_where_fewer_ended(case: Case, judged: tuple[Path, SweepOutcome], tmp_path: Path) -> None:
    store = Path(shutil.copytree(judged[0], tmp_path / "store"))
    before = {edit.id for edit in list_edits(store)}
    more = run(case, store, images=5)
    assert {point.row.edit for point in more.judged if point.row} > {
        point.row.edit for point in judged[1].judged if point.row
    }
    assert len({edit.id for edit in list_edits(store)} - before) == 2
    assert len(tables.read(store, "sweeps").to_pylist()) == 36  # another sweep, with rows of its own


def test_a_stopped_sweep_does_only_what_is_missing(
    case: Case, store: Path, judged: tuple[Path, SweepOutcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts: list[Any] = []

    def stops(*args: Any, **options: Any) -> Any:
        cuts.append(args)
        if len(cuts) == 2:
            raise KeyboardInterrupt
        return cut(*args, **options)

    cut = sweep_flow.cut
    with monkeypatch.context() as patched:
        patched.setattr(sweep_flow, "cut", stops)
        with pytest.raises(KeyboardInterrupt):
            run(case, store, images=3)
    assert tables.read(store, "sweeps").num_rows == 0
    done = files(store / "edits")
    outcome = run(case, store, images=3)
    assert {name: files(store / "edits")[name] for name in done} == done
    assert [(point.erased, point.kept) for point in outcome.points] == [
        (point.erased, point.kept) for point in judged[1].points
    ]


def row(erased: float, kept: float, before: float = 1.0) -> EditRow:
    nothing = {name: None for name in EditRow.__dataclass_fields__}
    return EditRow(**{
        **nothing, "edit": "ab" * 8, "created": datetime.now(UTC), "concept_before": before, "concept_n": 20,
        "concept_after": (1 - erased) * before, "others_before": 0.8, "others_after": 0.8 * kept, "others_n": 90,
    })  # fmt: skip


def points(*found: tuple[int, float, float] | int) -> list[SweepPoint]:
    """Points by pruned weights of 1000, with what they erase and keep where they were judged."""
    return [
        SweepPoint("0.1", place, 0.0, one, 1000)
        if isinstance(one, int)
        else SweepPoint("0.1", place, 0.0, one[0], 1000, row(*one[1:]))
        for place, one in enumerate(found, 1)
    ]


def chosen(*found: tuple[int, float, float] | int) -> tuple[int, str]:
    """The t_hat of the point that is chosen, and why."""
    marked, why = choose(points(*found), "fox")
    assert [replace(point, chosen=False) for point in marked] == [
        replace(point, row=one.row) for point, one in zip(points(*found), marked, strict=True)
    ]
    [best] = [point.t_hat for point in marked if point.chosen]
    return best, why


def test_the_choice_erases_most_of_those_that_keep_enough() -> None:
    best, why = chosen(10, (100, 0.5, 1.0), (200, 0.8, 0.95), (300, 0.7, 0.99), (400, 1.0, 0.949), 500)
    assert best == 3
    assert why == (
        "chosen: k 0.1, t_hat 3, vote share 0 (20.00% of the weights) erases 80% of fox, the most of the 3 of 4 judged "
        "points whose others keep at least 95% of their accuracy; here they keep 95%"
    )


def test_of_two_that_erase_as_much_the_lower_density_is_chosen() -> None:
    assert chosen((300, 0.8, 1.0), (200, 0.8, 0.96), (250, 0.8, 1.0))[0] == 2


def test_where_none_keeps_enough_the_harmonic_mean_decides_and_says_so() -> None:
    best, why = chosen((100, 0.1, 0.94), (200, 0.8, 0.75), (300, 1.0, 0.25))
    assert best == 2
    assert why == (
        "no judged point lets others keep 95% of their accuracy, the best 94%; chosen by the harmonic mean of erased "
        "and kept, 0.77: k 0.1, t_hat 2, vote share 0 (20.00% of the weights) erases 80% of fox, and others keep 75%"
    )
    assert chosen((100, 0.0, 0.0))[0] == 1


def test_what_the_judge_never_saw_is_not_erased() -> None:
    [blind] = [replace(point, row=row(0.0, 1.0, before=0.0)) for point in points((100, 0.0, 1.0))]
    assert (blind.erased, blind.kept) == (0.0, 1.0)
    assert Score("", 0.1, 0.0, 1.0).harmonic == Score("", 0.1, 0.0, 0.0).harmonic == 0.0
    [better] = points((100, -0.2, 1.25))  # after it the judge is right more often
    assert (better.erased, better.kept) == (0.0, 1.0)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(0, 12))
def test_judged_points_are_spread_over_the_densities(pruned: list[int], images: int) -> None:
    found = spread(points(*pruned), images)
    numbers = [pruned[place] for place in found]
    assert len(numbers) == len(set(numbers)) == min(images, len(set(pruned) - {0}))
    assert 0 not in numbers
    assert set(found) <= set(spread(points(*pruned), images + 1))  # more go on where fewer ended
    if len(numbers) > 2:
        assert {min(set(pruned) - {0}), max(pruned)} <= set(numbers)


def test_each_ratio_of_densities_counts_the_same() -> None:
    assert spread(points(1, 2, 10, 50, 100, 0), 3) == [0, 2, 4]


BAD = [
    (["--sparsity", "0.1,x"], "sparsity 'x' is not a number; give a share such as 0.05, or 5%"),
    (["--sparsity", "0.1,1.5"], "sparsity is 1.5; it must be above 0 and at most 1"),
    (["--sparsity", "nan"], "sparsity is NaN; it must be above 0"),
    (["--sparsity", "0.00001,0.1"], r"gives no candidate in unet\.\S+ \(width 32\); the smallest that works"),
    (["--sparsity", ","], "sparsities is .*at least 1 item"),
    (["--t-hat", "1,4"], "t_hat is 4, but only 3 steps are captured"),
    (["--t-hat", "0"], "t_hats.0 is '0': .*greater than or equal to 1"),
    (["--t-hat", "two"], "t_hats.0 is 'two': .*valid integer"),
    (["--vote-share", "0,1"], "vote_shares.1 is '1': .*less than 1"),
    (["--t-hat", "1", "--images", "-1"], "images is -1: .*greater than or equal to 0"),
    (["--t-hat", "1", "--branch", "left"], "branch is 'left'"),
    (["--t-hat", "1", "--judge", "nowhere"], "--judge only matters for drawing images; add --images 6"),
    (["--t-hat", "1", "--images", "0", "--model", "nowhere"], "--model only matters for drawing images"),
    ([], "there is no grid to sweep; give lists by commas, such as --sparsity 0.01,0.02,0.05"),
]


@pytest.mark.parametrize(("words", "says"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_is_one_sentence_and_writes_nothing(captured: Path, words: list[str], says: str) -> None:
    before = files(captured)
    refused(cli("sweep", "fox", "--store", captured, "--no-prefect", *words), says)
    assert files(captured) == before


def test_images_need_a_judge_and_prompts_to_judge_by(case: Case, captured: Path, tmp_path: Path) -> None:
    before = files(captured)
    words = ["sweep", "fox", *case.options(captured), "--no-prefect", "--t-hat", "1", "--images", "2"]
    refused(cli(*words, "--judge", "nowhere"), "no judge at nowhere")
    unjudged = tmp_path / "unjudged.toml"
    unjudged.write_text(CATALOG.replace('concept = ["{concept}"]\n', "", 1).replace("concept_prompts = 3\n", "", 1))
    refused(cli(*words, "--catalog", unjudged), "has no prompts to judge fox by")
    assert files(captured) == before


def test_a_grid_has_an_end(case: Case, captured: Path) -> None:
    shares = [place / 100 for place in range(100)]
    with pytest.raises(ValueError, match="the grid has 29700 points; at most 10000 can be shown"):
        plan_sweep(request(case, captured, sparsities=[f"0.{k:02}" for k in range(4, 103) if k < 100] + ["0.999", "1"]
                           + ["0.5555"], vote_shares=shares))  # fmt: skip
    with pytest.raises(ValidationError, match="at most 100 items"):
        request(case, captured, vote_shares=[*shares, 0.5])


def test_before_an_erasure_it_says_what_to_do(tmp_path: Path) -> None:
    words = ["sweep", "fox", "--t-hat", "1", "--store", tmp_path / "store", "--no-prefect"]
    refused(cli(*words), "no edit of fox in .*; run conceptprune erase fox first")
    assert not (tmp_path / "store").exists()


def test_people_see_densities_points_and_the_reason(
    case: Case, judged: tuple[Path, SweepOutcome], tmp_path: Path
) -> None:
    store = Path(shutil.copytree(judged[0], tmp_path / "store"))
    grid = ["--sparsity", "0.1,0.3,0.5", "--t-hat", "1,2,3", "--vote-share", "0,0.5", "--images", "3"]
    shown = cli("sweep", "fox", *case.options(store), *grid, "--no-prefect")
    assert shown.exit_code == 0, shown.stderr
    [best] = [point for point in judged[1].points if point.chosen]
    settings = f"--sparsity {best.sparsity} --t-hat {best.t_hat} --vote-share {best.vote_share:g}"
    for phrase in (
        "pruned at vote share 0.5",
        f"{best.density:.2%}",
        judged[1].why,
        f"sweep-{judged[1].sweep}-tradeoff.png",
        "18 points",
        f"conceptprune rethreshold fox {settings} --evaluate",
    ):
        assert phrase in shown.stdout


def test_the_command_that_it_names_makes_the_point_the_latest_edit(
    case: Case, judged: tuple[Path, SweepOutcome], tmp_path: Path
) -> None:
    store = Path(shutil.copytree(judged[0], tmp_path / "store"))
    command = judged[1].command
    assert command
    before = {edit.id for edit in list_edits(store)}
    done = cli(*command.split()[1:], *case.options(store), "--no-prefect")
    assert done.exit_code == 0, done.stderr
    [best] = [point for point in judged[1].points if point.chosen]
    edit = latest_edit(store, "fox")
    assert edit
    assert best.row
    assert edit.id == best.row.edit
    assert {edit.id for edit in list_edits(store)} == before


@pytest.mark.slow  # the server takes 10 to 25 s to start
def test_with_prefect_it_is_the_same_sweep(
    case: Case, store: Path, judged: tuple[Path, SweepOutcome], prefect_server: None
) -> None:
    found = sweep_of(sweep_flow.sweep(request(case, store, images=3)))
    assert (found.sweep, found.why) == (judged[1].sweep, judged[1].why)
    assert [point.pruned for point in found.points] == [point.pruned for point in judged[1].points]
