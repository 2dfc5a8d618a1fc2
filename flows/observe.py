"""A closer look at a concept's activations: pooled statistics or raw tokens of chosen sites and steps."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows.artifacts import key_of, progress_artifacts
from flows.observe_plan import Observation, ObserveRequest, make_observation
from flows.steps import Steps, tracked
from tasks.observing import lay_out_tier, observe_batch


@flow(name="observe", flow_run_name="observe-{request.concept}-{request.tier}")
def observe_concept(request: ObserveRequest) -> dict[str, Any]:
    """Keep a tier of one concept's prompt sets; a rerun does what is missing. Returns where it is."""
    with progress_artifacts():
        outcome = observe(make_observation(request), Steps(tracked))
    lines = [f"- {role}: `{url}`" for role, url in outcome["stores"].items()]
    create_markdown_artifact(
        "\n".join([f"# {request.concept}: {request.tier}", "", *lines]),
        key=key_of(f"{request.concept}-{request.tier}"),
        description="storage.opening.open_tier opens these",
    )
    return outcome


def observe(plan: Observation, steps: Steps) -> dict[str, Any]:
    """The flow's body. Returns the outcome as JSON values. Raises ValueError if it would take more than the limit."""
    plan.check()
    capture, observed = plan.capture, 0
    common = (capture.store, capture.model, capture.spec, capture.profile)
    for role, prompts in plan.sets.items():
        with steps.gpu_slot():
            pending = steps.call(lay_out_tier, *common, prompts, plan.tier, plan.sites, capture.document)
            args = (*common, prompts.digest, plan.tier, plan.sites)
            observed += sum(steps.in_turn(f"observe {role}", observe_batch, args, pending, plan.batch))
    return plan.as_json(observed)
