"""What an observation will keep and cost, decided and checked before anything loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import ByteSize, Field

from flows.capturing import seconds_a_prompt
from flows.config import Request, Settings
from flows.plan import Capture, duration, plan_capture
from flows.specs import MAX_CALLS_A_STEP
from storage.parallel import at_once
from storage.tier_arrays import price
from storage.tiers import TierStore
from tasks.catalogs import load_catalog
from tasks.concepts.prompts import PromptSet
from tasks.diffusion.spec import MAX_CALLS, NeuronSite, TierKind, TierSpec
from tasks.observing import captured_tokens

IN_MEMORY = 2_000_000_000  # bytes of activations that the machine holds until their prompts are stored, at most


class ObserveRequest(Request):
    """A look at one concept's activations, captured as an edit of it is."""

    tier: TierKind = Field(description="pooled: mean, absmax and share positive over tokens; raw: every token")
    sites: list[str] = Field(min_length=1, max_length=1000, description="names or patterns, such as unet.mid_block*")
    at_steps: str | None = Field(default=None, description="denoiser calls from 0, such as 0-4,9; else all captured")
    role: Literal["target", "reference", "both"] = Field(default="both", description="which of the concept's prompts")
    max_bytes: ByteSize = Field(
        default_factory=lambda: Settings.read().max_bytes, description="refuse to store more than this, such as 10GB"
    )


@dataclass(frozen=True)
class Observation:
    """A tier of a concept's prompt sets, to be kept."""

    request: ObserveRequest
    capture: Capture
    tier: TierSpec  # names its sites in full
    sites: list[NeuronSite]
    sets: Mapping[str, PromptSet]  # by role
    prompt_bytes: int  # that a prompt takes in the store
    largest: tuple[str, float]  # the site that takes most, and its share

    @property
    def batch(self) -> int:
        """Prompts drawn at once: as many as asked for, if their activations fit in memory until they are stored."""
        return max(1, min(self.request.batch, IN_MEMORY // self.prompt_bytes))

    def store(self, role: str) -> TierStore:
        """The tier's store of a role."""
        return TierStore(self.request.store, self.capture.profile, self.sets[role].digest, self.tier)

    def missing(self) -> int:
        """How many prompts are not observed yet."""

        def count(role: str) -> int:
            store = self.store(role)
            return len(store.pending()) if store.exists() else len(self.sets[role])

        return sum(at_once(count, self.sets))

    @property
    def calls(self) -> tuple[int, int]:
        """How many steps are kept, and the denoiser calls that it takes to see them."""
        captured = self.capture.spec.window or self.capture.spec.steps
        steps = self.tier.calls(captured if self.tier.steps is None else MAX_CALLS)
        return len(steps), steps[-1] + 1

    def cost(self) -> str:
        """What the observation will take, in a line."""
        missing, total = self.missing(), sum(map(len, self.sets.values()))
        rate = seconds_a_prompt(self.capture)
        captured = self.capture.spec.window or self.capture.spec.steps
        time = f", about {duration(rate * missing * self.calls[1] / captured)}" if rate and missing else ""
        return (
            f"observe: {self.tier.kind}, {missing} prompts x {self.calls[0]} steps, {len(self.sites)} sites, "
            f"{_size(missing * self.prompt_bytes)}{time} ({total - missing} of {total} prompts are there already)"
        )

    def check(self) -> None:
        """Raises ValueError that names the size and what to cut if it is past the limit."""
        missing = self.missing()
        if (size := missing * self.prompt_bytes) > self.request.max_bytes:
            site, share = self.largest
            raise ValueError(
                f"{self.tier.kind} activations of {missing} prompts x {self.calls[0]} steps, {len(self.sites)} sites, "
                f"would take {_size(size)}, and the limit is {_size(self.request.max_bytes)}; choose fewer --sites "
                f"({site} alone takes {share:.0%}), --at-steps or one --role, or raise --max-bytes"
            )

    def as_json(self, observed: int) -> dict[str, Any]:
        """The command line's JSON document."""
        return {"concept": self.request.concept, "tier": self.tier.kind, "profile": self.capture.profile,
                "sites": list(self.tier.sites), "steps": self.store(next(iter(self.sets))).steps(),
                "bytes": self.prompt_bytes * sum(map(len, self.sets.values())), "observed": observed,
                "stores": {role: self.store(role).url for role in self.sets}}  # fmt: skip


def make_observation(request: ObserveRequest) -> Observation:
    """Resolve, check and price a request without loading a model. Raises ValueError in one sentence."""
    catalog = load_catalog(request.catalog_url)
    concept = catalog[request.concept]
    capture = plan_capture(request, catalog)
    asked = TierSpec(request.tier, tuple(request.sites), request.at_steps)
    sites = asked.chosen(capture.sites)
    tier = replace(asked, sites=tuple(site.name for site in sites))
    if tier.steps is not None:
        tier.calls(capture.spec.window or capture.spec.steps * MAX_CALLS_A_STEP)
    tokens = captured_tokens(request.store, capture.profile, sites) if tier.kind == "raw" else {}
    if tokens is None:
        raise ValueError(
            "raw activations have no price yet: nothing is captured with these settings, and energies tell how many "
            f"tokens a site has; run conceptprune erase {request.concept} with them first"
        )
    by_site = {site.name: price(tier, [site], tokens, capture.spec, 1) for site in sites}
    total, largest = sum(by_site.values()), max(by_site, key=lambda name: by_site[name])
    both = {"target": concept.target, "reference": concept.reference}
    sets = {role: prompts for role, prompts in both.items() if request.role in ("both", role)}
    return Observation(request, capture, tier, sites, sets, total, (largest, by_site[largest] / total))


def _size(count: int) -> str:
    """Bytes for people.

    >>> _size(1_234), _size(1_234_567), _size(10_000_000_000)
    ('1.2 kB', '1.2 MB', '10.0 GB')
    """
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count / 1000:.1f} kB"
