"""The command collateral: which other concepts an edit touches."""

from __future__ import annotations

from typing import Annotated

import typer

from flows import options as o
from flows.answering import answer
from flows.config import Settings

EditId = Annotated[str, typer.Option("--edit", help="The edit's digest.")]


def collateral(concept: o.Concept, edit: EditId = "latest", store: o.Store = None, as_json: o.Json = False) -> None:
    """Rank the store's other concepts by how much of them an edit prunes. Nothing is loaded or drawn.

    "shared" is how much of what another concept's own edit prunes this one prunes too; "importance" how much of what
    its prompts feed through the sites goes through pruned weights; "excess" how much more than of its references.
    """
    from flows import showing_collateral
    from flows.collateral import find_collateral

    answer(
        lambda: find_collateral(store or Settings.read().store, concept, edit),
        as_json,
        showing_collateral.print_collateral,
    )
