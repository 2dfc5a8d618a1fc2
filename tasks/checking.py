"""What can be known of a run before any model loads: plain functions for flows to call first. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

from tasks.diffusion.families import Family
from tasks.diffusion.headers import ModelCard as ModelCard
from tasks.diffusion.headers import family_in, kinds_in, profile_of, read_card, read_sites
from tasks.diffusion.sources import resolve
from tasks.diffusion.spec import CaptureSpec, ModelSpec, NeuronSite
from tasks.pruning.masks import check_sparsity


def check_model(model: ModelSpec, capture: CaptureSpec) -> tuple[ModelCard, CaptureSpec, str, dict[str, Any]]:
    """A model's card, the capture as that model runs it, and its profile's digest and document, from the model's files.

    Raises ValueError in one sentence when the model is missing, holds pickles or code, is of an unknown family, or was
    trained with fewer timesteps than the capture has steps.
    """
    card = read_card(model, capture.kinds)
    trained = card.scheduler.get("num_train_timesteps", capture.steps)
    if capture.steps > trained:
        raise ValueError(f"steps is {capture.steps}, but {model.path} was trained with {trained} timesteps; give fewer")
    capture = replace(capture, halves=card.halves)
    return card, capture, *profile_of(card, capture)


def model_sites(model: ModelSpec, kinds: Sequence[str] | None) -> tuple[Family, list[str], list[NeuronSite]]:
    """A model's family, the site kinds that it has, and its sites of these kinds, or all, from its files.

    Raises ValueError in one sentence when the model is missing, unsafe or unknown, or has no such kind.
    """
    folder = resolve(model)
    known = kinds_in(folder)
    return family_in(folder), known, read_sites(folder, kinds or known, model.variant)


def check_candidates(sparsity: Decimal, sites: Sequence[NeuronSite]) -> None:
    """Raises ValueError that names the smallest sparsity that works when this one leaves a site without candidates."""
    check_sparsity(sparsity, {site.name: site.width for site in sites})
