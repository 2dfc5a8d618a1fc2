"""The main path: catalog -> prompt sets -> capture -> activations -> ranking -> mask -> delta -> evaluation -> edit."""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.artifacts import publish
from flows.config import Request
from flows.outcome import Outcome, manifest_of, report_of
from flows.plan import Cut, Plan, make_plan
from flows.steps import Steps, tracked
from tasks.capturing import capture_batch, plan_capture, store_model
from tasks.editing import make_mask, seal_edit
from tasks.evaluating import accuracy, draw_sheet, evaluate_batch
from tasks.ranking import rank_concept


@flow(name="erase-concept", flow_run_name="erase-{request.concept}")
def erase_concept(request: Request) -> dict[str, Any]:
    """Erase one concept of a catalog and show it; returns the edit's URL and report."""
    outcome = erase(make_plan(request), Steps(tracked))
    publish(outcome)
    return outcome.as_json()


def erase(plan: Plan, steps: Steps) -> Outcome:
    """The flow's body. An edit that is there already is verified, made the latest and returned as it is."""
    if edit := plan.cut.draft.sealed():
        return Outcome.of(edit)
    with steps.stage("capture"):
        capture(plan, steps)
    return cut(plan.cut, plan.request, steps)


def capture(plan: Plan, steps: Steps) -> None:
    """Make sure that the model's weights and both prompt sets' energies are in the store."""
    request, sites = plan.request, list(plan.cut.sites)
    steps.call(store_model, request.store, request.model_spec, plan.cut.ranking.model, sites, plan.cut.model)
    common = (request.store, request.model_spec, plan.capture, plan.cut.ranking.profile)
    for role, prompts in plan.sets.items():
        pending = steps.call(plan_capture, *common, prompts, sites, plan.profile)
        steps.in_turn(f"capture {role}", capture_batch, (*common, prompts.digest, sites), pending, request.batch)


def cut(edit: Cut, request: Request, steps: Steps) -> Outcome:
    """Rank, mask, evaluate where a judge was given, and seal the edit."""
    with steps.stage("rank"):
        steps.call(rank_concept, edit.store, edit.ranking, list(edit.sites), edit.prune.sparsity)
    with steps.stage("mask"):
        densities = steps.call(make_mask, edit.draft, edit.ranking, list(edit.sites), edit.prune)
    evaluation = None
    if edit.evaluation is not None:
        with steps.stage("evaluate"):
            evaluation = evaluate(edit, request, steps)
    report = report_of(edit, densities, evaluation, steps.seconds)
    steps.call(seal_edit, edit.draft, report, manifest_of(edit))
    sealed = edit.draft.sealed()
    assert sealed is not None  # it was sealed above
    return Outcome.of(sealed)


def evaluate(edit: Cut, request: Request, steps: Steps) -> dict[str, Any]:
    """Draw and judge the concept's evaluation prompts and the others, before and after."""
    assert edit.evaluation is not None  # the caller asked
    found = {}
    for part in edit.evaluation.parts:
        args = (edit.draft, edit.evaluation.model, edit.evaluation.capture, part, request.judge_path)
        batches = steps.in_turn(f"evaluate {part.part}", evaluate_batch, args, range(part.size()), request.batch)
        found[part.part] = accuracy([row for batch in batches for row in batch])
    headings = [f"{name}: judged right {found[name]['before']:.0%} -> {found[name]['after']:.0%}" for name in found]
    title = f"{edit.slug} erased: sparsity {edit.prune.sparsity:f}, t_hat {edit.prune.t_hat}"
    steps.call(draw_sheet, edit.draft, title, list(edit.evaluation.parts), headings)
    return {**found, "judge": {"name": request.judge_path.name, "sha256": edit.evaluation.judge}}
