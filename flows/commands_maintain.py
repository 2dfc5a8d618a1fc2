"""The command maintain: whether all that a store holds is sound, and what to do about what is not."""

from __future__ import annotations

from typing import Annotated

import typer

from flows import options as o
from flows.answering import answer, asked

RankingsDays = Annotated[
    int | None, typer.Option(help="Delete rankings older than these days: a cache, computed again. \\[default: none]")
]
Leftovers = Annotated[
    bool, typer.Option("--leftovers/--no-leftovers", help="On a disk, delete drafts of writers killed over a day ago.")
]
Energies = Annotated[
    str,
    typer.Option(help="skip; check reads all of them; reset makes damaged prompts pending, for the next run to draw."),
]


def maintain(
    store: o.Store = None,
    rankings_days: RankingsDays = None,
    leftovers: Leftovers = True,
    energies: Energies = "skip",
    as_json: o.Json = False,
    no_prefect: o.NoPrefect = False,
) -> None:
    """Verify every edit of the store against its manifest, and tidy up what killed runs left behind.

    Exit code 1 if something is damaged and stays so; what is damaged is named, with what to do.
    """
    options = dict(store=store, rankings_days=rankings_days, leftovers=leftovers, energies=energies)
    from flows import erasing, showing_upkeep
    from flows.config import MaintenanceRequest

    answer(
        lambda: erasing.maintain(asked(MaintenanceRequest, options), no_prefect), as_json, showing_upkeep.print_upkeep
    )
