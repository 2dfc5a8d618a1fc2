"""The row types of the family table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SitePattern:
    """The Linears of one site kind, by qualified name inside the component."""

    kind: str  # "ffn"
    pattern: str  # a regular expression that `re.search` finds in the qualified name


@dataclass(frozen=True)
class Family:
    """One architecture: the component that holds sites, its class and its site patterns."""

    name: str
    component: str  # the pipeline's attribute, e.g. "unet"
    classes: tuple[str, ...]  # class names of that component
    patterns: tuple[SitePattern, ...]
