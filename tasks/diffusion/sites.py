"""Finds a pipeline's denoiser, and its Linears by the names that sites carry."""

from __future__ import annotations

from typing import Any

from torch import nn

from tasks.diffusion.families import FAMILIES

PREFIX = "text_model."  # of CLIP's modules in older files and releases of transformers, not in newer ones


def denoiser(pipe: Any) -> nn.Module:
    """The pipeline's denoiser. Raises ValueError where it has none of a known family."""
    for family in FAMILIES:
        found = getattr(pipe, family.component, None)
        if isinstance(found, nn.Module):
            return found
    raise ValueError(f"{type(pipe).__name__} has no {' or '.join(sorted({f.component for f in FAMILIES}))}")


def linear(pipe: Any, name: str) -> nn.Linear:
    """The Linear "<component>.<qualified name>". Raises ValueError where the pipeline has none of that name."""
    component, _, module = name.partition(".")
    for alias in (module, module.removeprefix(PREFIX), PREFIX + module):
        try:
            found = getattr(pipe, component).get_submodule(alias)
        except AttributeError:
            continue
        if isinstance(found, nn.Linear):
            return found
    raise ValueError(f"this pipeline has no Linear {name}: the edit or capture is of another model")
