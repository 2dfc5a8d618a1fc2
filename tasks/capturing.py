"""Tasks that lay out an activation store and fill it."""

from __future__ import annotations

import logging
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.activations import ActivationStore
from storage.models import ModelStore
from tasks.concepts.prompts import PromptSet
from tasks.copying import copy_captured
from tasks.diffusion.spec import CaptureSpec, ModelSpec, NeuronSite
from tasks.naming import run_name

log = logging.getLogger(__name__)


@task(name="store-model", cache_policy=NO_CACHE)
def store_model(root: str, model: ModelSpec, key: str, sites: list[NeuronSite], attributes: dict[str, Any]) -> str:
    """Keep every site's weight in the store, so that ranking and editing need no torch.

    Returns the model store's URL.
    """
    from tasks.diffusion import pipelines, pruned

    store = ModelStore(root, key)
    if not store.exists():
        pipe = pipelines.load(model)
        weights = pruned.weights_fingerprint(pipe, {site.component for site in sites})
        store.write(pruned.site_weights(pipe, sites), sites, {**attributes, "dtype": model.dtype, "weights": weights})
    return str(store.url)


@task(name="lay-out", task_run_name="lay-out-{prompts.digest}", cache_policy=NO_CACHE)
def lay_out(
    root: str,
    model: ModelSpec,
    capture: CaptureSpec,
    profile: str,
    prompts: PromptSet,
    sites: list[NeuronSite],
    attributes: dict[str, Any],
) -> list[int]:
    """Lay out the store of a prompt set, if it is not there, and copy the prompts that another set has.

    Returns the slots that are still to be captured.
    """
    from tasks.diffusion import pipelines

    store = ActivationStore(root, profile, prompts.digest)
    if not store.exists():
        steps = pipelines.captured_timesteps(pipelines.load(model), capture)
        store.plan(prompts.prompts, sites, steps, capture.branches, attributes)
    pending = store.pending()
    if pending and copy_captured(root, profile, prompts.digest):
        pending = store.pending()
    return pending


@task(
    name="capture-batch",
    task_run_name=run_name("capture-{prompt_set}-{slots}", "slots"),
    cache_policy=NO_CACHE,
    retries=1,
)
def capture_batch(
    root: str,
    model: ModelSpec,
    capture: CaptureSpec,
    profile: str,
    prompt_set: str,
    sites: list[NeuronSite],
    slots: list[int],
) -> int:
    """Run the model on the prompts of the given slots and keep their energies. Returns how many were captured."""
    from tasks.diffusion import pipelines
    from tasks.diffusion.recorder import record

    store = ActivationStore(root, profile, prompt_set)
    prompts = store.missing(slots)
    if not prompts:
        return 0
    pipe = pipelines.load(model)
    steps = store.steps_and_branches()[0]
    with record(pipe, sites, branches=len(capture.branches), padding=capture.padding) as recording:
        pipelines.generate(pipe, list(prompts.values()), capture, window=steps)
    if recording.calls != steps:
        raise RuntimeError(
            f"the denoiser ran {recording.calls} times, expected {steps}: another scheduler than planned"
        )
    energies = recording.energies()
    for i, slot in enumerate(prompts):
        store.write(slot, {name: energy[i] for name, energy in energies.items()}, recording.tokens_of(i))
    return len(prompts)
