"""Finds a pipeline's Linears by the names that sites carry."""

from __future__ import annotations

from typing import Any

from torch import nn


def linear(pipe: Any, name: str) -> nn.Linear:
    """The Linear "<component>.<qualified name>". Raises ValueError where the pipeline has none of that name."""
    component, _, module = name.partition(".")
    try:
        found = getattr(pipe, component).get_submodule(module)
    except AttributeError:
        found = None
    if not isinstance(found, nn.Linear):
        raise ValueError(f"this pipeline has no Linear {name}: the edit or capture is of another model")
    return found
