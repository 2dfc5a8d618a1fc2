"""The command sites: where a model's neurons are, from its files alone."""

from __future__ import annotations

from typing import Annotated

import typer

from flows import options as o
from flows.answering import answer, asked

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A diffusers folder, a hub id, or demo.")]
Match = Annotated[str | None, typer.Option(help="Only sites so named, a pattern such as 'unet.up_blocks*'.")]


def sites(
    model: ModelArgument = "demo",
    revision: o.Revision = None,
    variant: o.Variant = None,
    kinds: o.Kinds = None,
    match: Match = None,
    steps: o.Steps = None,
    as_json: o.Json = False,
) -> None:
    """List a model's neuron sites: kind, width, weights, and what the energies of a prompt take. Nothing is loaded.

    conceptprune sites demo --kinds ffn,attn_v. Patterns of their names are what --include and --exclude take.
    """
    from flows import showing_sites
    from flows.config import Common
    from flows.site_list import list_sites

    base = dict(model=model, revision=revision, variant=variant)
    answer(lambda: list_sites(asked(Common, base), kinds, match, steps), as_json, showing_sites.print_sites)
