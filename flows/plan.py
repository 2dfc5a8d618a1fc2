"""What a run will do, decided and checked before anything loads: bad input ends here, in one sentence."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from flows.config import Request
from storage.activations import ActivationStore
from storage.drafts import EditDraft
from storage.edits import latest, list_edits
from storage.models import ModelStore
from storage.urls import digest
from tasks.checking import check_candidates, check_model
from tasks.concepts.catalog import Catalog, load_catalog
from tasks.concepts.concept import Concept
from tasks.concepts.prompts import PromptSet
from tasks.diffusion.spec import CaptureSpec, ModelSpec, NeuronSite, PruneSpec, parse_sparsity
from tasks.editing import RankingKey
from tasks.evaluating import EvaluationPart

Spec = TypeVar("Spec", CaptureSpec, PruneSpec)

MAX_CALLS_A_STEP = 2  # denoiser calls that a scheduler makes for a step, at most (Heun)


@dataclass(frozen=True)
class Evaluation:
    """How an edit is judged."""

    model: ModelSpec  # what draws them
    capture: CaptureSpec  # how images are drawn; the window is not used
    parts: tuple[EvaluationPart, ...]
    judge: str  # sha256 of the judge's weights
    prompts: str  # digest of the prompts and the labels expected


@dataclass(frozen=True)
class Cut:
    """One edit to be made from stored energies: all that decides its files."""

    store: str
    model: Mapping[str, Any]  # the manifest's model, without its weights' fingerprint
    sites: tuple[NeuronSite, ...]
    ranking: RankingKey
    slug: str
    prune: PruneSpec
    evaluation: Evaluation | None = None

    @property
    def draft(self) -> EditDraft:
        """The edit's address: its digest covers the ranking, the prune spec and the evaluation."""
        shown = None if self.evaluation is None else [self.evaluation.judge, self.evaluation.prompts]
        ranking = [self.ranking.model, self.ranking.profile, self.ranking.reference, self.ranking.target]
        return EditDraft(self.store, self.ranking.model, self.slug, digest([ranking, self.prune.as_json(), shown]))


@dataclass(frozen=True)
class Plan:
    """A whole run: what to capture, and the edit to make of it."""

    request: Request
    concept: Concept
    capture: CaptureSpec
    profile: Mapping[str, Any]  # the document that the ranking's profile is the digest of
    cut: Cut

    @property
    def sets(self) -> dict[str, PromptSet]:
        """The prompt sets by role."""
        return {"reference": self.concept.reference, "target": self.concept.target}

    def missing(self) -> int:
        """How many prompts are not captured yet."""
        stores = [(ActivationStore(self.cut.store, self.cut.ranking.profile, s.digest), s) for s in self.sets.values()]
        return sum(len(store.pending()) if store.exists() else len(prompts) for store, prompts in stores)

    def cost(self) -> str:
        """What the capture will take, in a line."""
        missing, steps, sites = self.missing(), self.capture.window or self.capture.steps, self.cut.sites
        size = missing * steps * len(self.capture.branches) * sum(site.width for site in sites) * 4
        have = sum(map(len, self.sets.values())) - missing
        return (
            f"capture: {missing} prompts x {steps} steps, {len(sites)} sites, {size / 1e6:.1f} MB"
            f" ({have} of {have + missing} prompts are in the store already)"
        )


def make_plan(request: Request) -> Plan:
    """Resolve and check a request without loading a model. Raises ValueError in one sentence."""
    catalog = load_catalog(request.catalog_path)
    concept = catalog[request.concept]
    capture = capture_spec(request, catalog)
    prune = prune_spec(request, catalog.prune_defaults(concept.kind))
    limit = capture.window or capture.steps * MAX_CALLS_A_STEP
    if prune.t_hat > limit:
        raise ValueError(
            f"t_hat is {prune.t_hat}, but only {capture.window or capture.steps} steps are captured; "
            "give a smaller --t-hat, or capture more with --window and --steps"
        )
    _check_branch(prune, capture.branches)
    _check_kinds(request, prune, capture.kinds)
    card, profile, document = check_model(request.model_spec, capture)
    check_candidates(prune.sparsity, card.sites)
    ranking = RankingKey(card.key, profile, concept.reference.digest, concept.target.digest, prune.branch)
    evaluation = _evaluation(request, concept, request.model_spec, capture) if request.evaluate else None
    cut = Cut(request.store, document["model"], card.sites, ranking, concept.slug, prune, evaluation)
    return Plan(request, concept, capture, document, cut)


def stored_cut(request: Request) -> Cut:
    """Another edit of a concept that the store knows, from its latest edit; no model is looked at.

    Raises ValueError in one sentence when there is none, or the store cannot answer.
    """
    edits = list_edits(request.store, concept=request.concept)
    if not edits:
        raise ValueError(
            f"there is no edit of {request.concept} in {request.store}; run conceptprune erase {request.concept} first"
        )
    newest = edits[-1].manifest
    current = latest(request.store, newest["model"]["key"], request.concept)  # a run may have gone back to an older one
    manifest = next((edit.manifest for edit in edits if edit.id == current), newest)
    model, sets = manifest["model"], manifest["prompt_sets"]
    prune = prune_spec(request, manifest["prune"])
    ranking = RankingKey(model["key"], manifest["profile"], sets["reference"], sets["target"], prune.branch)
    activations = ActivationStore(request.store, ranking.profile, ranking.target).open()
    _check_branch(prune, [str(name) for name in activations.coords["branch"].values])
    captured = activations.sizes["step"]
    if prune.t_hat > captured:
        raise ValueError(f"t_hat is {prune.t_hat}, but only {captured} steps are captured; give a smaller --t-hat")
    sites = tuple(ModelStore(request.store, ranking.model).sites())
    check_candidates(prune.sparsity, sites)
    known = {key: value for key, value in model.items() if key != "weights"}
    return Cut(request.store, known, sites, ranking, request.concept, prune)


def evaluated(cut: Cut, request: Request) -> Cut:
    """A stored cut with the catalog's evaluation, drawn the way that the concept was captured.

    Raises ValueError in one sentence when the catalog's prompts or the model are others than were captured.
    """
    concept = load_catalog(request.catalog_path)[cut.slug]
    if (concept.reference.digest, concept.target.digest) != (cut.ranking.reference, cut.ranking.target):
        raise ValueError(
            f"{cut.slug} has other prompts in {request.catalog_path} than were captured; "
            f"give that --catalog, or run conceptprune erase {cut.slug}"
        )
    profile = ActivationStore(cut.store, cut.ranking.profile, cut.ranking.target).attributes()
    capture = TypeAdapter(CaptureSpec).validate_python(profile["capture"])
    model = replace(request.model_spec, dtype=profile["dtype"])
    if check_model(model, capture)[1] != cut.ranking.profile:
        raise ValueError(
            f"{cut.slug} was captured from another model than {model.path}, {profile['model']['id']}; give that --model"
        )
    return replace(cut, evaluation=_evaluation(request, concept, model, capture))


def capture_spec(request: Request, catalog: Catalog) -> CaptureSpec:
    """The catalog's [capture] with what the request sets instead."""
    given = {"steps": request.steps, "window": request.window, "guidance": request.guidance,
             "height": request.size, "width": request.size}  # fmt: skip
    values = {**catalog.file.capture, **{key: value for key, value in given.items() if value is not None}}
    spec = _checked(f"[capture] of catalog {request.catalog_path}", values, given, CaptureSpec)
    if spec.window is not None and spec.window > spec.steps * MAX_CALLS_A_STEP:
        raise ValueError(f"window is {spec.window}, but {spec.steps} steps are run; give a smaller --window")
    for side in (spec.height, spec.width):
        if side is not None and (side < 8 or side % 8):
            raise ValueError(f"size is {side} pixels; it must be a multiple of 8, as latents are")
    return spec


def prune_spec(request: Request, defaults: Mapping[str, Any]) -> PruneSpec:
    """The defaults with what the request sets instead."""
    given = {key: getattr(request, key) for key in ("sparsity", "t_hat", "vote_share", "branch")}
    values = {**defaults, **{key: value for key, value in given.items() if value is not None}}
    if missing := {"sparsity", "t_hat"} - set(values):
        raise ValueError(f"neither the catalog nor an option sets {' or '.join(sorted(missing))}; give it")
    place = f"[prune] of catalog {request.catalog_path}"
    return _checked(place, {**values, "sparsity": parse_sparsity(values["sparsity"])}, given, PruneSpec)


def _check_branch(prune: PruneSpec, captured: Sequence[str]) -> None:
    if prune.branch not in ("both", *captured):
        raise ValueError(f"branch {prune.branch} is not run at this guidance; choose both or {' or '.join(captured)}")


def _check_kinds(request: Request, prune: PruneSpec, captured: Sequence[str]) -> None:
    if sorted(prune.kinds) != sorted(captured):
        raise ValueError(
            f"[prune] of catalog {request.catalog_path}: kinds are {', '.join(prune.kinds) or 'none'}, "
            f"but {', '.join(captured)} sites are captured; give [prune] and [capture] the same kinds"
        )


def _checked(place: str, values: Mapping[str, Any], given: Mapping[str, Any], spec: type[Spec]) -> Spec:
    """A spec of values from a file, whose types are anything: 4 becomes 4.0 where that is meant, so that digests agree.

    `place` is where they stand, unless the request gives them.
    Raises ValueError in one sentence.
    """
    known = [field.name for field in fields(spec)]
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{place} has {', '.join(unknown)}, which is unknown; known are {', '.join(known)}")
    try:
        return TypeAdapter(spec).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":  # the spec's own sentence
            raise ValueError(str(first["ctx"]["error"])) from None
        name = ".".join(map(str, first["loc"]))
        where = "" if given.get(name) is not None else f"{place}: "
        raise ValueError(f"{where}{name} is {str(first['input'])!r}: {first['msg']}") from None


def _evaluation(request: Request, concept: Concept, model: ModelSpec, capture: CaptureSpec) -> Evaluation | None:
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
    parts = tuple(EvaluationPart(request.catalog_path, concept.slug, part) for part in ("concept", "others"))
    return Evaluation(model, capture, parts, judge, prompts)
