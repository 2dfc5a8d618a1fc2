"""Tasks that keep a tier of activations beside the energies, and what its price depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.activations import ActivationStore, captured_sets
from storage.opening import open_activations
from storage.tier_arrays import Tokens
from storage.tiers import TierStore
from tasks.concepts.prompts import Prompt, PromptSet
from tasks.diffusion.spec import CaptureSpec, ModelSpec, NeuronSite, TierSpec
from tasks.naming import run_name


def captured_tokens(root: str, profile: str, sites: Sequence[NeuronSite]) -> dict[str, int] | None:
    """How many tokens each site sees, as captured energies tell, which sum to them. No model, no torch.

    None if nothing is captured under the profile.
    """
    for prompt_set in captured_sets(root, profile):
        tree = open_activations(ActivationStore(root, profile, prompt_set).url)
        ready = [slot for slot, mark in enumerate(tree.dataset["complete"].values) if mark == 1]
        if ready:
            first = {"prompt": ready[0], "step": 0, "branch": 0}
            return {
                site.name: round(float(tree[site.name]["energy"].isel(first, missing_dims="ignore").sum()))
                for site in sites
            }
    return None


@task(name="lay-out-tier", cache_policy=NO_CACHE)
def lay_out_tier(
    root: str,
    model: ModelSpec,
    capture: CaptureSpec,
    profile: str,
    prompts: PromptSet,
    tier: TierSpec,
    sites: list[NeuronSite],
    attributes: dict[str, Any],
) -> list[int]:
    """Lay out the tier's store of a prompt set, if it is not there.

    Returns the slots that are still to be observed.
    """
    from tasks.diffusion import pipelines

    store = TierStore(root, profile, prompts.digest, tier)
    if not store.exists():
        pipe = pipelines.load(model)
        timesteps = pipelines.captured_timesteps(pipe, capture)
        tier.calls(len(timesteps))  # raises for a step that is not captured, before the model runs
        tokens = _look(pipe, capture, sites)
        store.plan(prompts.prompts, sites, tokens, timesteps, capture.branches, attributes)
    return store.pending()


@task(
    name="observe-batch",
    task_run_name=run_name("observe-{prompt_set}-{slots}", "slots"),
    cache_policy=NO_CACHE,
    retries=1,
)
def observe_batch(
    root: str,
    model: ModelSpec,
    capture: CaptureSpec,
    profile: str,
    prompt_set: str,
    tier: TierSpec,
    sites: list[NeuronSite],
    slots: list[int],
) -> int:
    """Run the model on the prompts of the given slots, as far as the tier's last step, and keep what the tier wants.

    Returns how many were observed.
    """
    from tasks.diffusion import pipelines
    from tasks.diffusion.recorder import record

    store = TierStore(root, profile, prompt_set, tier)
    prompts = store.missing(slots)
    if not prompts:
        return 0
    pipe = pipelines.load(model)
    with record(pipe, sites, len(capture.branches), [tier]) as recording:
        pipelines.generate(pipe, list(prompts.values()), capture, window=store.steps()[-1] + 1)
    values = recording.tier(tier)
    for i, slot in enumerate(prompts):
        store.write(slot, {site: {name: x[i] for name, x in own.items()} for site, own in values.items()})
    return len(prompts)


def _look(pipe: Any, capture: CaptureSpec, sites: Sequence[NeuronSite]) -> dict[str, Tokens]:
    """How many tokens each site sees and how they lie: one denoiser call of an empty prompt."""
    from tasks.diffusion import pipelines
    from tasks.diffusion.recorder import record

    with record(pipe, sites, len(capture.branches)) as recording:
        pipelines.generate(pipe, [Prompt("", 0)], capture, window=1)
    grids = recording.grids()
    return {name: Tokens(count, grids[name]) for name, count in recording.tokens.items()}
