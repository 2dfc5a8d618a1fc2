"""The command tune: a concept's settings, chosen by evidence."""

from __future__ import annotations

from typing import Annotated

import typer

from flows import options as o
from flows.answering import answer, asked
from tasks.naming import words

Sparsities = Annotated[
    str | None, typer.Option("--sparsity", help="k to try, by commas. \\[default: 1/8 to 1.5 of the catalog's]")
]
THats = Annotated[
    str | None, typer.Option("--t-hat", help="First steps that vote, by commas. \\[default: around the catalog's]")
]
VoteShares = Annotated[str | None, typer.Option(help="Vote shares, by commas. \\[default: 0 to 0.7]")]
Branches = Annotated[
    str | None, typer.Option("--branch", help="Guidance halves, by commas, such as both,cond. \\[default: both,cond]")
]
Candidates = Annotated[int | None, typer.Option(help="Settings that are drawn and judged. \\[default: 10]")]
Keep = Annotated[float | None, typer.Option(help="Share of their accuracy that others shall keep. \\[default: 0.95]")]
Adopt = Annotated[bool, typer.Option("--adopt/--no-adopt", help="Make the chosen edit the concept's latest.")]


def tune(
    concept: o.Concept,
    sparsity: Sparsities = None,
    t_hat: THats = None,
    vote_share: VoteShares = None,
    branch: Branches = None,
    candidates: Candidates = None,
    keep: Keep = None,
    adopt: Adopt = True,
    store: o.Store = None,
    catalog: o.CatalogFile = None,
    model: o.Model = None,
    revision: o.Revision = None,
    variant: o.Variant = None,
    judge: o.Judge = None,
    device: o.Device = None,
    offload: o.Offload = None,
    slicing: o.Slicing = None,
    batch: o.Batch = None,
    as_json: o.Json = False,
    no_prefect: o.NoPrefect = False,
) -> None:
    """Choose a captured concept's settings: most erased while others keep enough, confirmed on prompts not chosen by.

    Densities of the whole grid come from the store alone. A few settings, spread over them and then around the best,
    are drawn on every other evaluation prompt; the best and the catalog's are drawn on the rest.
    """
    options = dict(
        concept=concept, sparsities=words(sparsity), t_hats=words(t_hat), vote_shares=words(vote_share),
        branches=words(branch), candidates=candidates, keep=keep, adopt=adopt, store=store, catalog=catalog,
        model=model, revision=revision, variant=variant, judge=judge, device=device, offload=offload, slicing=slicing,
        batch=batch,
    )  # fmt: skip
    from flows import erasing, showing_tune
    from flows.tune import TuneRequest

    answer(lambda: erasing.tune(asked(TuneRequest, options), no_prefect), as_json, showing_tune.print_tune)
