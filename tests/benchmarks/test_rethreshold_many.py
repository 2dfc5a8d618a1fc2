"""Re-thresholding a hundred concepts of the bundled model, against capturing one: one run, one machine."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flows.capturing import capture
from flows.config import CatalogRequest, Request
from flows.plan import Capture, Plan, make_plan
from flows.rethreshold import cut_all, plan_cuts
from flows.steps import Steps
from storage.activations import ActivationStore
from tasks.concepts.prompts import Prompt, PromptSet
from tasks.cuts import Cut
from tasks.editing import cut_chunk

CONCEPTS = 100
PROMPTS = 4  # a set; a ranking depends on how many only while it is made
TOKENS = 64


def synthetic_set(plan: Capture, steps: list[float], name: str) -> str:
    """A prompt set with random energies, as if it had been captured. Returns its digest."""
    prompts = PromptSet(tuple(Prompt(f"{name} {i}", i) for i in range(PROMPTS)))
    store = ActivationStore(plan.store, plan.profile, prompts.digest)
    store.plan(prompts.prompts, plan.sites, steps, plan.spec.branches, plan.document)
    random = np.random.default_rng(len(name))
    for slot in range(PROMPTS):
        energies = {}
        for site in plan.sites:
            energy = random.exponential(size=(len(steps), len(plan.spec.branches), site.width)).astype(np.float32)
            energies[site.name] = energy * (TOKENS / energy.sum(-1, keepdims=True))
        store.write(slot, energies, {site.name: TOKENS for site in plan.sites})
    return prompts.digest


def synthetic_cuts(plan: Plan, steps: list[float]) -> list[Cut]:
    """A cut for each of many concepts, all against one reference."""
    reference = synthetic_set(plan.capture, steps, "reference")
    targets = {f"concept-{i:03d}": synthetic_set(plan.capture, steps, f"concept-{i:03d}") for i in range(CONCEPTS)}
    return [
        replace(plan.cut, slug=slug, ranking=replace(plan.cut.ranking, reference=reference, target=target))
        for slug, target in targets.items()
    ]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_hundred_concepts_take_less_time_than_one_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = make_plan(Request(concept="fox", store=str(tmp_path), evaluate=False))
    began = time.monotonic()
    capture(plan.capture, plan.sets, Steps(), 10)
    captured = time.monotonic() - began

    steps = ActivationStore(tmp_path, plan.capture.profile, plan.concept.target.digest).open()["timestep"].values
    cuts = synthetic_cuts(plan, [float(step) for step in steps])
    assert cut_chunk.fn(cuts) == [None] * CONCEPTS

    began = time.monotonic()
    outcome = cut_all(plan_cuts(CatalogRequest(store=str(tmp_path), evaluate=False, sparsity="0.11")), Steps())
    rethresholded = time.monotonic() - began
    assert (outcome.made, outcome.failed) == (CONCEPTS, {})
    with capsys.disabled():
        print(
            f"\ncapturing one concept, {sum(map(len, plan.sets.values()))} prompts: {captured:.1f} s; "
            f"re-thresholding {CONCEPTS}: {rethresholded:.1f} s, a ratio of {captured / rethresholded:.1f}"
        )
    assert rethresholded < captured
