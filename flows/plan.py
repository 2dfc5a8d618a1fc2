"""What a run will do, decided and checked before anything loads: bad input ends here, in one sentence."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flows.config import Common, Request
from flows.specs import MAX_CALLS_A_STEP, capture_spec, check_branch, check_kinds, prune_spec
from storage.activations import ActivationStore
from storage.names import digest
from storage.roots import Root
from tasks.catalogs import load_catalog
from tasks.checking import ModelCard, check_candidates, check_model
from tasks.concepts.catalog import Catalog
from tasks.concepts.concept import Concept
from tasks.concepts.prompts import PromptSet
from tasks.cuts import Cut, Evaluation, EvaluationPart, RankingKey
from tasks.diffusion.spec import CaptureSpec, ModelSpec, NeuronSite


@dataclass(frozen=True)
class Capture:
    """How prompt sets are captured: the same for every concept of a catalog."""

    store: str
    model: ModelSpec
    spec: CaptureSpec
    card: ModelCard
    profile: str  # digest of the document
    document: Mapping[str, Any]  # all that changes energies

    @property
    def sites(self) -> list[NeuronSite]:
        """The sites that are observed."""
        return list(self.card.sites)

    @property
    def prompt_bytes(self) -> int:
        """Bytes that the energies of one prompt take."""
        steps, own = self.spec.window or self.spec.steps, [site for site in self.sites if not site.source]
        return len(self.spec.branches) * sum(site.width * (1 if site.once else steps) for site in own) * 4

    def missing(self, prompts: PromptSet) -> int:
        """How many prompts of a set are not captured yet."""
        store = ActivationStore(self.store, self.profile, prompts.digest)
        return len(store.pending()) if store.exists() else len(prompts)


@dataclass(frozen=True)
class Plan:
    """A whole run for one concept: what to capture, and the edit to make of it."""

    request: Request
    concept: Concept
    capture: Capture
    cut: Cut

    @property
    def sets(self) -> dict[str, PromptSet]:
        """The prompt sets by role."""
        return {"reference": self.concept.reference, "target": self.concept.target}

    def missing(self) -> int:
        """How many prompts are not captured yet."""
        return sum(map(self.capture.missing, self.sets.values()))

    def cost(self, seconds_a_prompt: float | None = None) -> str:
        """What the capture will take, in a line."""
        missing, spec = self.missing(), self.capture.spec
        have = sum(map(len, self.sets.values())) - missing
        time = f", about {duration(seconds_a_prompt * missing)}" if seconds_a_prompt and missing else ""
        return (
            f"capture: {missing} prompts x {spec.window or spec.steps} steps, {len(self.capture.sites)} sites, "
            f"{missing * self.capture.prompt_bytes / 1e6:.1f} MB{time}"
            f" ({have} of {have + missing} prompts are in the store already)"
        )


def make_plan(request: Request) -> Plan:
    """Resolve and check a request without loading a model. Raises ValueError in one sentence."""
    catalog = load_catalog(request.catalog_url)
    concept = catalog[request.concept]
    return plan_concept(request, catalog, concept, plan_capture(request, catalog))


def plan_capture(request: Common, catalog: Catalog) -> Capture:
    """How a catalog's prompt sets are captured. Raises ValueError if the model or the store cannot be used."""
    Root(request.store).check()
    spec = capture_spec(request, catalog)
    card, spec, profile, document = check_model(request.model_spec, spec)
    return Capture(request.store, request.model_spec, spec, card, profile, document)


def plan_concept(request: Request, catalog: Catalog, concept: Concept, capture: Capture) -> Plan:
    """The plan of one concept. Raises ValueError in one sentence if its settings do not fit the capture."""
    spec = capture.spec
    prune = prune_spec(request, {"kinds": spec.kinds, **catalog.prune_defaults(concept)})
    if prune.t_hat > (spec.window or spec.steps * MAX_CALLS_A_STEP):
        raise ValueError(
            f"t_hat is {prune.t_hat}, but only {spec.window or spec.steps} steps are captured; "
            "give a smaller --t-hat, or capture more with --window and --steps"
        )
    check_branch(prune, spec.branches)
    check_kinds(request, prune, spec.kinds)
    sites = prune.chosen(capture.sites)
    check_candidates(prune.sparsity, sites)
    ranking = RankingKey(
        capture.card.key, capture.profile, concept.reference.digest, concept.target.digest, prune.branch, prune.prompts
    )
    evaluation = plan_evaluation(request, concept, capture.model, spec) if request.evaluate else None
    cut = Cut(request.store, capture.document["model"], sites, ranking, concept.slug, prune, evaluation)
    return Plan(request, concept, capture, cut)


def plan_evaluation(request: Common, concept: Concept, model: ModelSpec, capture: CaptureSpec) -> Evaluation | None:
    """How the concept's edit is judged; None if the catalog has no prompts for that.

    Raises ValueError if there is no judge.
    """
    asked = concept.evaluation
    if not asked.concept:
        return None
    weights = request.judge_path / "model.safetensors"
    if not weights.is_file():
        raise ValueError(
            f"no judge at {request.judge_path}: expected a folder with model.safetensors; give --judge or --no-evaluate"
        )
    with weights.open("rb") as file:
        judge = hashlib.file_digest(file, "sha256").hexdigest()
    prompts = digest([[e.prompt.text, e.prompt.seed, e.labels] for e in (*asked.concept, *asked.others)])
    parts = tuple(EvaluationPart(request.catalog_url, concept.slug, part) for part in ("concept", "others"))
    return Evaluation(model, capture, parts, request.judge_path, judge, prompts)


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(40), duration(300), duration(9000)
    ('40 s', '5 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
