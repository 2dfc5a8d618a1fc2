"""Attacks on an edit: learned from some prompts, judged on others, resumable, and nothing of the edit is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.attack import AttackRequest, attack_all, plan_attacks
from flows.attack_outcome import AttackOutcome, attacks_of
from flows.erase_concept import erase
from flows.plan import make_plan
from flows.steps import Steps
from storage import tables
from storage.roots import Root
from tasks import attacking
from tasks.attacking import Attack, attack_steps, judge_attack
from tasks.diffusion.pipelines import load
from tasks.diffusion.pruned import weights_fingerprint
from tasks.metrics.classifier import Classifier
from tests.erase_cases import Case
from tests.test_flows_cli import cli, refused

BUDGET = 3


def asked(case: Case, store: object, **options: Any) -> AttackRequest:
    paths = {name: str(getattr(case, name)) for name in ("model", "catalog", "judge")}
    return AttackRequest(
        **{"concept": "fox", "store": str(store), "device": "cpu", "budget": BUDGET, **paths, **options}
    )


@pytest.fixture(scope="module")
def store(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attacked") / "store"
    erase(make_plan(case.request(folder, evaluate=False, sparsity="0.5")), Steps())
    return folder


@pytest.fixture(scope="module")
def outcome(case: Case, store: Path) -> AttackOutcome:
    return attack_all(plan_attacks(asked(case, store)), Steps())


def test_each_attack_is_judged_beside_the_edit_and_the_unedited_model(
    case: Case, store: Path, outcome: AttackOutcome
) -> None:
    assert [row.attack for row in outcome.rows] == ["inversion", "tokens", "revival"]
    plan = plan_attacks(asked(case, store))
    judge, prompts = Classifier(case.judge), plan.attacks[0].ask.expectations()
    for row in outcome.rows:
        shares = []
        for draw in (plan.attacks[0].after, plan.attacks[0].before):
            seen = judge.labels(draw.images(prompts))
            shares.append(np.mean([one.labels[0] in found.values() for one, found in zip(prompts, seen, strict=True)]))
        assert (row.before, row.unedited) == pytest.approx(shares)
        assert row.after_low <= row.after <= row.after_high
        assert (row.n, row.budget, row.seed) == (len(prompts), BUDGET, 0)
        document = json.loads((Path(row.url)).read_bytes())
        assert document["draw"]["edit"]["edit"] == outcome.edit
        assert document["judge"]["sha256"] == judge.sha256
    assert tables.read(store, "attacks").num_rows == 3


def test_what_it_learns_from_is_not_what_it_is_judged_by(case: Case, store: Path) -> None:
    for one in plan_attacks(asked(case, store)).attacks:
        learned, judged = ({e.prompt for e in part.expectations()} for part in (one.learn, one.ask))
        assert learned
        assert judged
        assert not learned & judged


def test_the_model_is_as_it_was(case: Case, store: Path, outcome: AttackOutcome) -> None:
    pipe = load(plan_attacks(asked(case, store)).attacks[0].after.model)
    assert weights_fingerprint(pipe, ["unet"]) == plan_attacks(asked(case, store)).attacks[0].after.weights
    assert "<concept>" not in pipe.tokenizer.get_vocab()


@pytest.mark.parametrize("kind", ["inversion", "tokens"])
def test_a_stopped_attack_ends_where_an_undisturbed_one_does(
    case: Case, store: Path, outcome: AttackOutcome, kind: str, tmp_path: Path
) -> None:
    whole, parts = (plan_attacks(asked(case, store, kinds_of_attack=[kind], seed=5)).attacks[0] for _ in range(2))
    assert attack_steps.fn(whole, BUDGET) == BUDGET
    kept = (whole.place / "state.npz").get()
    (whole.place / "state.npz").delete()
    for done in range(1, BUDGET + 1):
        assert attack_steps.fn(parts, 1) == done
    states = [attacking._state(parts).pack()]
    (parts.place / "state.npz").put(kept or b"")
    states.append(attacking._state(whole).pack())
    assert states[0][1] == states[1][1]
    assert all(np.array_equal(states[0][0][name], states[1][0][name]) for name in states[0][0])


def test_what_is_there_is_taken(
    case: Case, store: Path, outcome: AttackOutcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.diffusion.pipelines.generate", lambda *_: pytest.fail("it was drawn"))
    monkeypatch.setattr(attacking, "_ATTACKS", {})
    words = ["--store", store, "--model", case.model, "--catalog", case.catalog, "--judge", case.judge]
    shown = cli("attack", "fox", *words, "--budget", BUDGET, "--device", "cpu", "--no-prefect", "--json")
    assert shown.exit_code == 0, shown.output
    assert attacks_of(json.loads(shown.stdout)) == outcome
    plain = cli("attack", "fox", *words, "--budget", BUDGET, "--device", "cpu", "--no-prefect").stdout
    assert "pictures that show it" in plain


def test_another_seed_budget_or_edit_is_another_attack(case: Case, store: Path) -> None:
    def address(**options: Any) -> str:
        return str(plan_attacks(asked(case, store, **options)).attacks[0].place)

    assert len({address(), address(seed=1), address(budget=4), address(steps=5)}) == 4
    assert address().startswith(str(Root(str(store)).path("attacks")))


def test_judging_before_attacking_is_a_mistake(case: Case, store: Path) -> None:
    (one,) = plan_attacks(asked(case, store, kinds_of_attack=["inversion"], seed=77)).attacks
    with pytest.raises(RuntimeError, match="the inversion attack was not run"):
        judge_attack.fn(one, 10)
    assert isinstance(one, Attack)


def test_bad_input_is_one_sentence(case: Case, store: Path, tmp_path: Path) -> None:
    words = ["--model", case.model, "--catalog", case.catalog, "--no-prefect"]
    judge = ["--judge", case.judge]
    refused(
        cli("attack", "fox", *words, *judge, "--store", store, "--by", "magic"), "attack 'magic' is unknown; choose"
    )
    refused(cli("attack", "fox", *words, "--judge", tmp_path, "--store", store), "no judge at")
    refused(cli("attack", "pear", *words, *judge, "--store", store), "no edit of pear")
    erase(make_plan(case.request(store, "rose", evaluate=False)), Steps())
    refused(cli("attack", "rose", *words, *judge, "--store", store), "too few prompts that name rose to attack it by")
