"""An edit under attack: how much of its concept comes back, on prompts that the attack did not learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prefect import flow
from pydantic import Field

from flows.artifacts import progress_artifacts, publish_attacks
from flows.attack_outcome import TABLE, AttackOutcome, AttackRow
from flows.config import Common
from flows.evaluate import draws
from flows.steps import Steps, tracked
from storage import tables
from storage.edits import Edit
from storage.listing import find_edit
from storage.roots import Root
from tasks.attacking import BUDGETS, Attack, attack_steps, judge_attack
from tasks.catalogs import load_catalog
from tasks.cuts import EvaluationPart, Half
from tasks.drawing import draw_batch

CHUNK = 10  # steps between two states that are kept


class AttackRequest(Common):
    """An edit and what is tried on it."""

    concept: str = Field(min_length=1, max_length=200, description="its slug, such as fox")
    edit: str = Field(default="latest", description="the edit's digest, or latest")
    kinds_of_attack: list[str] = Field(default=list(BUDGETS), min_length=1, description="inversion, tokens, revival")
    budget: int | None = Field(default=None, ge=1, le=100_000, description="steps; else the attack's own")
    seed: int = Field(default=0, ge=0, le=2**31)


@dataclass(frozen=True)
class AttackPlan:
    """Attacks to be made."""

    request: AttackRequest
    edit: Edit
    attacks: tuple[Attack, ...]

    def cost(self) -> str:
        """What it costs, before it begins."""
        sizes = [len(part.expectations()) for part in (self.attacks[0].learn, self.attacks[0].ask)]
        named = ", ".join(f"{attack.kind} {attack.budget} steps" for attack in self.attacks)
        return f"attack: {named}; learns from {sizes[0]} images, judged on {sizes[1]} prompts"


@flow(name="attack", flow_run_name="attack-{request.concept}")
def attack(request: AttackRequest) -> dict[str, Any]:
    """Attack an edit, and judge how much of its concept comes back."""
    with progress_artifacts():
        outcome = attack_all(plan_attacks(request), Steps(tracked))
    publish_attacks(outcome)
    return outcome.as_json()


def plan_attacks(request: AttackRequest) -> AttackPlan:
    """The attacks, checked. Raises ValueError in one sentence; nothing is loaded."""
    Root(request.store).check()
    edit = find_edit(request.store, request.concept, request.edit)
    before, after = draws(request, edit)
    catalog = load_catalog(request.catalog_url)
    concept, word = catalog[request.concept], catalog.spoken(request.concept)
    asked = concept.evaluation.concept
    if word is None or len(asked) < 2 or not all(word in one.prompt.text for one in asked):
        raise ValueError(
            f"catalog {request.catalog_url} has too few prompts that name {concept.slug} to attack it by; "
            "give it words and a recipe with concept prompts"
        )
    if not (request.judge_path / "model.safetensors").is_file():
        raise ValueError(f"no judge at {request.judge_path}: expected a folder with model.safetensors; give --judge")
    part = EvaluationPart(request.catalog_url, concept.slug, "concept")
    kinds = list(dict.fromkeys(request.kinds_of_attack))
    attacks = tuple(
        Attack(kind, request.budget or BUDGETS.get(kind, 0), request.seed, before, after, Half(part, False),
               Half(part, True), word, request.judge_path)
        for kind in kinds
    )  # fmt: skip
    return AttackPlan(request, edit, attacks)


def attack_all(plan: AttackPlan, steps: Steps) -> AttackOutcome:
    """The flow's body. What was drawn, learned or judged before is taken as it is."""
    batch, first = plan.request.batch, plan.attacks[0]
    with steps.stage("draw"):
        for part, draw in ((first.learn, first.before), (first.ask, first.before), (first.ask, first.after)):
            label = f"draw {part.part} {'after' if draw.edit else 'before'}"
            steps.in_turn(label, draw_batch, (draw, part), range(len(part.expectations())), batch)
    found = []
    with steps.stage("attack"):
        for one in plan.attacks:
            done = 0
            while done < one.budget:
                done = steps.call(attack_steps, one, CHUNK)
                steps.show(one.kind, done, one.budget)
            found.append(steps.call(judge_attack, one, batch))
    return AttackOutcome(plan.edit.concept, plan.edit.id, str(plan.edit.path), table_attacks(plan, found))


def table_attacks(plan: AttackPlan, found: Sequence[Mapping[str, Any]]) -> list[AttackRow]:
    """The results as rows; those that the store's table lacks join it."""
    rows = [AttackRow.of(plan.edit, one) for one in found]
    root = Root(plan.request.store).url
    known = tables.values(root, TABLE, "url")
    tables.write_rows(root, TABLE, [asdict(row) for row in rows if row.url not in known], tables.columns_of(AttackRow))
    return rows
