"""Tuning: chosen by a stated rule on validation prompts, confirmed on others, from cached activations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.choosing import Score, best
from flows.erase_concept import erase
from flows.evaluate import draws
from flows.plan import make_plan
from flows.steps import Steps
from flows.tune import TuneRequest, nearest, plan_tune, tune_all, verdict
from flows.tune_outcome import Candidate, Shares, TuneOutcome, tune_of
from storage import tables
from storage.edits import read_edit_at
from storage.listing import latest_edit
from tasks.catalogs import load_catalog
from tasks.cuts import EvaluationPart, Half
from tests.erase_cases import Case
from tests.test_flows_cli import cli, refused

GRID: dict[str, Any] = {"sparsities": ["0.1", "0.3", "0.6"], "t_hats": [1, 3], "vote_shares": [0.0, 0.5]}


def asked(case: Case, store: object, **options: Any) -> TuneRequest:
    paths = {name: str(getattr(case, name)) for name in ("model", "catalog", "judge")}
    return TuneRequest(
        **{"concept": "fox", "store": str(store), "device": "cpu", "candidates": 4, **paths, **GRID, **options}
    )


@pytest.fixture(scope="module")
def store(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the fox was captured."""
    folder = tmp_path_factory.mktemp("tuned") / "store"
    erase(make_plan(case.request(folder, evaluate=False)), Steps())
    return folder


@pytest.fixture(scope="module")
def outcome(case: Case, store: Path) -> TuneOutcome:
    return tune_all(plan_tune(asked(case, store)), Steps())


def test_the_choice_is_the_rules_own_on_validation_prompts(outcome: TuneOutcome, store: Path) -> None:
    assert len(outcome.candidates) == 4
    assert outcome.grid == 2 * 12 + 1  # both branches, and the catalog's settings
    scores = [one.score(one.validation) for one in outcome.candidates if one.validation]
    place, why = best(scores, "fox", outcome.keep)
    assert outcome.candidates[place] is outcome.chosen
    assert outcome.why == why
    assert [one.preset for one in outcome.candidates].count(True) == 1
    assert {one.name for one in outcome.candidates if one.held_out} == {outcome.chosen.name, outcome.preset.name}
    assert (outcome.preset.sparsity, outcome.preset.t_hat, outcome.preset.vote_share) == ("0.2", 2, 0.0)
    latest = latest_edit(str(store), "fox")
    assert latest is not None
    assert (str(latest.path), latest.id) == (outcome.url, outcome.chosen.edit)


def test_candidates_are_real_edits_of_their_density(case: Case, outcome: TuneOutcome) -> None:
    for one in outcome.candidates:
        edit = read_edit_at(one.url or "")
        masks = edit.masks()
        pruned = sum(int(mask.sum()) for mask in masks.values()) / sum(mask.size for mask in masks.values())
        assert one.density == pytest.approx(pruned)
        prune = edit.manifest["prune"]
        assert (prune["sparsity"], prune["t_hat"], prune["vote_share"], prune["branch"]) == one.settings


def test_no_prompt_is_in_both_halves_and_none_is_left_out(case: Case) -> None:
    for part in ("concept", "others"):
        whole = EvaluationPart(str(case.catalog), "fox", part)
        halves = [Half(whole, held_out).expectations() for held_out in (False, True)]
        assert not set(halves[0]) & set(halves[1])
        assert {*halves[0], *halves[1]} == set(whole.expectations())
    assert Half(whole, True).part == "others-held-out"


def test_validation_looks_at_no_held_out_prompt(case: Case, store: Path, outcome: TuneOutcome) -> None:
    loser = next(one for one in outcome.candidates if not one.chosen and not one.preset)
    _, after = draws(asked(case, store), read_edit_at(loser.url or ""))
    held_out = [one.prompt.name for part in ("concept", "others")
                for one in Half(EvaluationPart(str(case.catalog), "fox", part), True).expectations()]  # fmt: skip
    assert after.store().missing(held_out) == held_out


def test_what_is_there_is_taken(case: Case, store: Path, outcome: TuneOutcome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.diffusion.pipelines.generate", lambda *_: pytest.fail("it was drawn"))
    rows = tables.read(store, "tunes").num_rows
    words = ["--store", store, "--model", case.model, "--catalog", case.catalog, "--judge", case.judge]
    grid = ["--sparsity", "0.1,0.3,0.6", "--t-hat", "1,3", "--vote-share", "0,0.5", "--candidates", "4"]
    shown = cli("tune", "fox", *words, *grid, "--device", "cpu", "--no-prefect", "--json")
    assert shown.exit_code == 0, shown.output
    assert tune_of(json.loads(shown.stdout)) == outcome
    assert tables.read(store, "tunes").num_rows == rows == 4
    plain = cli("tune", "fox", *words, *grid, "--device", "cpu", "--no-prefect")
    assert outcome.why in plain.stdout
    assert "4 of 25 settings judged" in plain.stdout


def test_without_adopting_the_latest_edit_stays(case: Case, tmp_path: Path) -> None:
    first = erase(make_plan(case.request(tmp_path, evaluate=False)), Steps()).url
    tuned = tune_all(plan_tune(asked(case, tmp_path, adopt=False, candidates=2)), Steps())
    latest = latest_edit(str(tmp_path), "fox")
    assert latest is not None
    assert str(latest.path) == first
    assert read_edit_at(tuned.url).id == tuned.chosen.edit


def shares(erased: float, kept: float) -> Shares:
    whole, others = {"before": {"value": 1.0}}, {"before": {"value": 1.0}}
    return Shares({**whole, "after": {"value": 1 - erased}}, {**others, "after": {"value": kept}})


def test_the_next_candidate_goes_to_where_the_best_may_be_bettered() -> None:
    points = [Candidate(f"0.{i}", 1, 0.0, "both", 0.02 * i) for i in range(1, 9)]
    judged = {one.settings: replace(one, validation=shares(0.5, 1.0)) for one in points[2:3]}
    assert nearest(points, judged, 0.95) is points[3]  # others keep enough: a little more
    judged = {one.settings: replace(one, validation=shares(0.5, 0.5)) for one in points[4:5]}
    assert nearest(points, judged, 0.95) is points[3]  # they do not: less
    everything = {one.settings: replace(one, validation=shares(0.5, 1.0)) for one in points}
    assert nearest(points, everything, 0.95) is None


def test_the_verdict_is_by_the_same_rule_on_held_out_prompts() -> None:
    preset = Candidate("0.2", 2, 0.0, "both", 0.2, preset=True, held_out=shares(0.9, 0.8))
    better = Candidate("0.1", 2, 0.0, "both", 0.1, held_out=shares(0.5, 0.96))
    said, beats = verdict(better, preset, 0.95)
    assert beats  # the preset erases more, but others do not keep enough
    assert said == (
        "on held-out prompts it erases 50% and others keep 96%; the preset erases 90% and others keep 80%: "
        "it beats the preset"
    )
    assert not verdict(better, replace(preset, held_out=shares(0.9, 0.95)), 0.95)[1]
    assert verdict(preset, preset, 0.95) == ("the preset itself was chosen", False)


def test_of_two_that_keep_enough_the_more_erased_is_better() -> None:
    scores = [Score("a", 0.1, 0.5, 0.99), Score("b", 0.2, 0.8, 0.95), Score("c", 0.3, 0.99, 0.94)]
    assert best(scores, "fox")[0] == 1
    assert best(scores, "fox", 0.9)[0] == 2
    assert best(scores[2:], "fox")[0] == 0


def test_bad_input_is_one_sentence(case: Case, store: Path, tmp_path: Path) -> None:
    words = ["--model", case.model, "--catalog", case.catalog, "--judge", case.judge, "--no-prefect"]
    refused(cli("tune", "fox", *words, "--store", tmp_path / "none"), "there is no edit of fox in .*; run conceptprune")
    refused(cli("tune", "fox", *words, "--store", store, "--t-hat", "9"), "t_hat is 9, but only 3 steps are captured")
    refused(cli("tune", "fox", *words, "--store", store, "--branch", "left"), "branches.0 is 'left'")
    refused(cli("tune", "fox", *words, "--store", store, "--candidates", "1"), "candidates is 1")
    assert load_catalog(case.catalog)["rose"].evaluation.concept == ()
    with pytest.raises(ValidationError):
        asked(case, store, keep=1.5)
    erase(make_plan(case.request(store, "rose", evaluate=False)), Steps())
    refused(cli("tune", "rose", *words, "--store", store), "too few prompts to judge rose by")
