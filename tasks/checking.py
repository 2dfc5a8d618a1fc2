"""What can be known of a run before any model loads: plain functions for flows to call first. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from tasks.diffusion.headers import ModelCard as ModelCard
from tasks.diffusion.headers import profile_of, read_card
from tasks.diffusion.spec import CaptureSpec, ModelSpec, NeuronSite
from tasks.pruning.masks import check_sparsity


def check_model(model: ModelSpec, capture: CaptureSpec) -> tuple[ModelCard, str, dict[str, Any]]:
    """A model's card, and the digest and document of its profile, read from its files.

    Raises ValueError in one sentence when the model is missing, holds pickles or code, is of an unknown family, or was
    trained with fewer timesteps than the capture has steps.
    """
    card = read_card(model, capture.kinds)
    trained = card.scheduler.get("num_train_timesteps", capture.steps)
    if capture.steps > trained:
        raise ValueError(f"steps is {capture.steps}, but {model.path} was trained with {trained} timesteps; give fewer")
    return card, *profile_of(card, capture)


def check_candidates(sparsity: Decimal, sites: Sequence[NeuronSite]) -> None:
    """Raises ValueError that names the smallest sparsity that works when this one leaves a site without candidates."""
    check_sparsity(sparsity, {site.name: site.width for site in sites})
