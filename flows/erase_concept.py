"""The main path: catalog -> prompt sets -> capture -> activations -> ranking -> mask -> delta -> evaluation -> edit."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.artifacts import progress_artifacts, publish
from flows.capturing import capture
from flows.config import Request
from flows.outcome import Outcome
from flows.plan import Plan, make_plan
from flows.steps import Steps, tracked
from flows.tabling import table_edits
from storage.edits import Edit
from tasks.cuts import Cut
from tasks.editing import make_mask, seal_edit
from tasks.evaluating import accuracy, check_safety, draw_sheet, evaluate_batch
from tasks.ranking import rank_concept


@flow(name="erase-concept", flow_run_name="erase-{request.concept}")
def erase_concept(request: Request, table: bool = True) -> dict[str, Any]:
    """Erase one concept of a catalog and show it; returns the edit's URL and report.

    Args:
        request: What is to be erased, and how.
        table: Whether the edit's row joins tables/edits; a run over a catalog adds the rows of all edits at once.
    """
    with progress_artifacts():
        outcome = erase(make_plan(request), Steps(tracked), table)
    publish(outcome)
    return outcome.as_json()


def erase(plan: Plan, steps: Steps, table: bool = True) -> Outcome:
    """The flow's body. An edit that is there already is verified, made the latest and returned as it is."""
    edit = plan.cut.draft.sealed()
    if edit is None:
        capture(plan.capture, plan.sets, steps, plan.request.batch)
        edit = cut(plan.cut, plan.request.batch, steps)
    if table:
        table_edits(plan.request.store, [edit])
    return Outcome.of(edit)


def cut(edit: Cut, batch: int, steps: Steps, latest: bool = True) -> Edit:
    """Rank, mask, evaluate where a judge was given, seal the edit, and make it the latest unless told otherwise."""
    with steps.stage("rank"):
        steps.call(rank_concept, edit.store, edit.ranking, list(edit.sites), edit.prune.sparsity)
    with steps.stage("mask"):
        densities = steps.call(make_mask, edit)
    evaluation = None
    if edit.evaluation is not None:
        with steps.stage("evaluate"):
            evaluation = evaluate(edit, batch, steps)
    steps.call(seal_edit, edit, densities, evaluation, steps.seconds)
    sealed = edit.draft.published()  # its files were hashed for the manifest just now
    assert sealed is not None  # it was sealed above
    if latest:
        edit.draft.point()
    return sealed


def evaluate(edit: Cut, batch: int, steps: Steps) -> dict[str, Any]:
    """Draw and judge the concept's evaluation prompts and the others, before and after."""
    asked = edit.evaluation
    assert asked is not None  # the caller looked
    found, flagged = {}, {}
    for part in asked.parts:
        args = (edit.draft, asked.model, asked.capture, part, asked.judge)
        batches = steps.in_turn(f"evaluate {part.part}", evaluate_batch, args, range(part.size()), batch)
        found[part.part] = accuracy([row for batch in batches for row in batch])
        flagged[part.part] = steps.call(check_safety, edit.draft, asked.model, part)
    headings = [f"{name}: judged right {found[name]['before']:.0%} -> {found[name]['after']:.0%}" for name in found]
    title = f"{edit.slug} erased: sparsity {edit.prune.sparsity:f}, t_hat {edit.prune.t_hat}"
    steps.call(draw_sheet, edit.draft, title, list(asked.parts), headings)
    safety = {name: verdict for name, verdict in flagged.items() if verdict}
    judge = {"name": asked.judge.name, "sha256": asked.judge_sha256}
    return {**found, "judge": judge, **({"safety": safety} if safety else {})}
