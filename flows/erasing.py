"""The commands that run a flow: say the cost, run it with or without Prefect, show progress."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

# Prefect reads these when it is imported. Its ephemeral server takes 10 to 25 s to start, more in a new home; its own
# telemetry would lock the new database meanwhile, and its notices would run through the progress bars.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")

from flows import attack as attack_flow
from flows import combine as combine_flow
from flows import erase_catalog as catalog_flow
from flows import erase_concept as erase_flow
from flows import evaluate as evaluate_flow
from flows import maintain as maintain_flow
from flows import observe as observe_flow
from flows import publish as publish_flow
from flows import report as report_flow
from flows import rethreshold as rethreshold_flow
from flows import sweep as sweep_flow
from flows import tune as tune_flow
from flows.attack import AttackRequest
from flows.attack_outcome import AttackOutcome, attacks_of
from flows.capturing import seconds_a_prompt
from flows.catalog_plan import CatalogPlan, make_catalog_plan
from flows.combine import CombineRequest
from flows.config import CatalogRequest, MaintenanceRequest, Request
from flows.evaluate import EvaluateRequest
from flows.evaluation_outcome import EvaluationOutcome
from flows.evaluation_outcome import outcome_of as evaluation_of
from flows.maintain import StoreDamaged, Upkeep
from flows.observe_plan import ObserveRequest, make_observation
from flows.outcome import Outcome
from flows.plan import make_plan
from flows.publish import PublishRequest
from flows.report import ReportOutcome, ReportRequest
from flows.showing import err, progress_bars
from flows.steps import Steps, progress
from flows.sweep import SweepRequest
from flows.sweep_outcome import SweepOutcome, sweep_of
from flows.tabling import CatalogOutcome, ConceptsFailed, outcome_of
from flows.tune import TuneRequest
from flows.tune_outcome import TuneOutcome, tune_of
from storage.edits import read_edit_at
from storage.roots import Root

Result = TypeVar("Result")


def erase(request: Request, no_prefect: bool) -> Outcome:
    """Erase a concept. Raises ValueError for bad input, before a model or a server starts."""
    plan = make_plan(request)
    say(plan.cost(seconds_a_prompt(plan.capture)))
    return _run(
        lambda: erase_flow.erase(plan, Steps()),
        lambda: Outcome.of(read_edit_at(erase_flow.erase_concept(request)["url"])),
        no_prefect,
    )


def check_catalog(request: CatalogRequest) -> CatalogPlan:
    """What a run over a catalog would do. Raises ValueError for bad input."""
    return make_catalog_plan(request)


def erase_catalog(request: CatalogRequest, no_prefect: bool) -> CatalogOutcome:
    """Erase a catalog's concepts. Raises ValueError for bad input, before a model or a server starts."""
    plan = make_catalog_plan(request)
    for line in plan.cost().lines():
        say(line)
    return _run(
        lambda: catalog_flow.erase_all(plan, Steps()),
        lambda: _outcome(lambda: catalog_flow.erase_catalog(request)),
        no_prefect,
    )


def rethreshold(request: CatalogRequest, no_prefect: bool) -> CatalogOutcome:
    """Make other edits from the store. Raises ValueError for bad input, before a server starts."""
    plan = rethreshold_flow.plan_cuts(request)
    return _run(
        lambda: rethreshold_flow.cut_all(plan, Steps()),
        lambda: _outcome(lambda: rethreshold_flow.rethreshold(request)),
        no_prefect,
    )


def sweep(request: SweepRequest, no_prefect: bool) -> SweepOutcome:
    """Sweep a grid. Raises ValueError for bad input, before a model or a server starts."""
    plan = sweep_flow.plan_sweep(request)
    return _run(
        lambda: sweep_flow.sweep_all(plan, Steps()),
        lambda: sweep_of(sweep_flow.sweep(request)),
        no_prefect,
    )


def combine(request: CombineRequest, no_prefect: bool) -> Outcome:
    """Combine edits. Raises ValueError for bad input, before a server starts."""
    plan = combine_flow.plan_combination(request)
    return _run(
        lambda: combine_flow.combine_all(plan, Steps()),
        lambda: Outcome.of(read_edit_at(combine_flow.combine(request)["url"])),
        no_prefect,
    )


def observe(request: ObserveRequest, no_prefect: bool) -> dict[str, Any]:
    """Keep a tier of activations. Raises ValueError for bad input, or a size past the limit, before a model starts."""
    plan = make_observation(request)
    say(plan.cost())
    plan.check()
    return _run(
        lambda: observe_flow.observe(plan, Steps()),
        lambda: observe_flow.observe_concept(request),
        no_prefect,
    )


def maintain(request: MaintenanceRequest, no_prefect: bool) -> Upkeep:
    """Look after a store. Raises ValueError if it cannot be used, before a server starts."""
    Root(request.store).check()

    def tracked() -> Upkeep:
        try:
            return Upkeep(**maintain_flow.maintain(request))
        except StoreDamaged as error:
            return error.found

    return _run(lambda: maintain_flow.look_after(request, Steps()), tracked, no_prefect)


def attack(request: AttackRequest, no_prefect: bool) -> AttackOutcome:
    """Attack an edit. Raises ValueError for bad input, before a model or a server starts."""
    plan = attack_flow.plan_attacks(request)
    say(plan.cost())
    return _run(
        lambda: attack_flow.attack_all(plan, Steps()), lambda: attacks_of(attack_flow.attack(request)), no_prefect
    )


def tune(request: TuneRequest, no_prefect: bool) -> TuneOutcome:
    """Choose settings by evidence. Raises ValueError for bad input, before a model or a server starts."""
    plan = tune_flow.plan_tune(request)
    say(plan.cost())
    return _run(lambda: tune_flow.tune_all(plan, Steps()), lambda: tune_of(tune_flow.tune(request)), no_prefect)


def evaluate(request: EvaluateRequest, no_prefect: bool) -> EvaluationOutcome:
    """Measure an edit. Raises ValueError for bad input, before a model or a server starts."""
    plan = evaluate_flow.plan_evaluate(request)
    say(plan.cost())
    return _run(
        lambda: evaluate_flow.evaluate_all(plan, Steps()),
        lambda: evaluation_of(evaluate_flow.evaluate(request)),
        no_prefect,
    )


def publish(request: PublishRequest, no_prefect: bool) -> dict[str, Any]:
    """Publish an edit. Raises ValueError for bad input, before a server starts."""
    plan = publish_flow.plan_publication(request)
    return _run(
        lambda: publish_flow.publish_all(plan, Steps()),
        lambda: publish_flow.publish(request),
        no_prefect,
    )


def report(request: ReportRequest, no_prefect: bool) -> ReportOutcome:
    """Write pages about edits. Raises ValueError for bad input, before a server starts."""
    plan = report_flow.plan_report(request)
    return _run(
        lambda: report_flow.report_all(plan, Steps()),
        lambda: ReportOutcome(**report_flow.report(request)),
        no_prefect,
    )


def say(line: str) -> None:
    """A line for people, beside the progress bars."""
    err.print(line, highlight=False, soft_wrap=True)


def _outcome(flow: Callable[[], dict[str, Any]]) -> CatalogOutcome:
    try:
        return outcome_of(flow())
    except ConceptsFailed as error:
        return error.outcome


def _run(body: Callable[[], Result], flow: Callable[[], Result], no_prefect: bool) -> Result:
    with progress_bars() as bars:
        token = progress.set(bars)
        try:
            return body() if no_prefect else flow()
        finally:
            progress.reset(token)
