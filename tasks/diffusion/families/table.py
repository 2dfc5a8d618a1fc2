"""The row types of the family table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SitePattern:
    """The Linears of one site kind, by qualified name inside the component."""

    kind: str  # "ffn", "ffn_in", "attn_k", "attn_v" or "text"
    pattern: str  # a regular expression that `re.search` finds in the qualified name
    embedding: bool = False  # the input is the prompt's embedding: the same at every step, and at every such site
    after_rows: bool = False  # the neurons are the inputs after the first `rows`, as many as the Linear has outputs


@dataclass(frozen=True)
class Family:
    """One architecture: the denoiser, its class and its site patterns."""

    name: str
    component: str  # the denoiser: the pipeline's attribute, e.g. "unet"
    classes: tuple[str, ...]  # class names of that component
    patterns: tuple[SitePattern, ...]
    halves: bool = True  # guidance above 1 runs an uncond half; False: it is distilled into the model
