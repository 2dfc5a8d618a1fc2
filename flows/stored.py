"""Edits that can be made from the store alone: what it knows of a concept, and what is asked for instead."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from pydantic import TypeAdapter

from flows.config import Common
from flows.plan import plan_evaluation
from flows.specs import check_branch, prune_spec
from storage.activations import ActivationStore
from storage.listing import latest_edit
from storage.models import ModelStore
from tasks.catalogs import load_catalog
from tasks.checking import check_candidates, check_model
from tasks.cuts import Cut, RankingKey
from tasks.diffusion.slots import slots_of
from tasks.diffusion.spec import CaptureSpec, NeuronSite


def stored_cut(request: Common, slug: str) -> Cut:
    """Another edit of a concept that the store knows, from its latest edit; no model is looked at.

    Raises ValueError in one sentence when there is none, or the store cannot answer.
    """
    edit = latest_edit(request.store, slug)
    if edit is None:
        raise ValueError(f"there is no edit of {slug} in {request.store}; run conceptprune erase {slug} first")
    if combined := edit.manifest["prune"].get("combined"):
        first = min(combined["erase"])
        raise ValueError(
            f"{slug} is a combination of other edits and has no energies of its own; change a part, such as "
            f"conceptprune rethreshold {first}, and combine again"
        )
    model, sets = edit.manifest["model"], edit.manifest["prompt_sets"]
    prune = prune_spec(request, edit.manifest["prune"])
    ranking = RankingKey(
        model["key"], edit.manifest["profile"], sets["reference"], sets["target"], prune.branch, prune.prompts
    )
    stores = [ActivationStore(request.store, ranking.profile, digest) for digest in (ranking.target, ranking.reference)]
    steps, branches = stores[0].steps_and_branches()
    check_branch(prune, branches)
    if prune.t_hat > steps:
        raise ValueError(f"t_hat is {prune.t_hat}, but only {steps} steps are captured; give a smaller --t-hat")
    for store in stores if prune.prompts is not None else ():
        slots_of(prune.prompts or "", store.size())
    sites = prune.chosen(_sites(request.store, ranking.model))
    check_candidates(prune.sparsity, sites)
    known = {key: value for key, value in model.items() if key != "weights"}
    return Cut(request.store, known, sites, ranking, slug, prune)


@lru_cache(maxsize=8)
def _sites(store: str, model: str) -> tuple[NeuronSite, ...]:
    """A model's sites; its key has its fingerprint, so they never change."""
    return tuple(ModelStore(store, model).sites())


def evaluated(cut: Cut, request: Common) -> Cut:
    """A stored cut with the catalog's evaluation, drawn the way that the concept was captured.

    Raises ValueError in one sentence when the catalog's prompts or the model are others than were captured.
    """
    concept = load_catalog(request.catalog_url)[cut.slug]
    if (concept.reference.digest, concept.target.digest) != (cut.ranking.reference, cut.ranking.target):
        raise ValueError(
            f"{cut.slug} has other prompts in {request.catalog_url} than were captured; "
            f"give that --catalog, or run conceptprune erase {cut.slug}"
        )
    profile = ActivationStore(cut.store, cut.ranking.profile, cut.ranking.target).attributes()
    capture = TypeAdapter(CaptureSpec).validate_python(profile["capture"])
    model = replace(
        request.model_spec, dtype=profile["dtype"], variant=request.variant or profile["model"].get("variant")
    )
    if check_model(model, capture)[2] != cut.ranking.profile:
        raise ValueError(
            f"{cut.slug} was captured from another model than {model.path}, {profile['model']['id']}; give that --model"
        )
    return replace(cut, evaluation=plan_evaluation(request, concept, model, capture))
