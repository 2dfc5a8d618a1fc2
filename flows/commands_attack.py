"""The command attack: how much of an erased concept can be brought back."""

from __future__ import annotations

from typing import Annotated

import typer

from flows import options as o
from flows.answering import answer, asked
from tasks.naming import words

EditId = Annotated[str | None, typer.Option("--edit", help="The edit's digest. \\[default: the concept's latest]")]
By = Annotated[str | None, typer.Option(help="Attacks by commas: inversion, tokens, revival. \\[default: all]")]
Budget = Annotated[int | None, typer.Option(min=1, help="Steps. \\[default: inversion 150, tokens 25, revival 100]")]
Seed = Annotated[int | None, typer.Option(min=0, help="Of the attack. \\[default: 0]")]


def attack(
    concept: o.Concept,
    by: By = None,
    budget: Budget = None,
    seed: Seed = None,
    edit: EditId = None,
    store: o.Store = None,
    catalog: o.CatalogFile = None,
    model: o.Model = None,
    revision: o.Revision = None,
    judge: o.Judge = None,
    device: o.Device = None,
    offload: o.Offload = None,
    slicing: o.Slicing = None,
    batch: o.Batch = None,
    steps: o.Steps = None,
    guidance: o.Guidance = None,
    size: o.Size = None,
    as_json: o.Json = False,
    no_prefect: o.NoPrefect = False,
) -> None:
    """Attack an edit and say how much of its concept comes back: pruning hides a concept, it does not remove it.

    inversion learns a word vector from the unedited model's pictures, tokens searches words to put in front, revival
    fills the zeroed weights in again. Each learns from half of the concept's prompts and is judged on the others. A
    stopped attack goes on where it was.
    """
    options = dict(
        concept=concept, kinds_of_attack=words(by), budget=budget, seed=seed, edit=edit, store=store, catalog=catalog,
        model=model, revision=revision, judge=judge, device=device, offload=offload, slicing=slicing, batch=batch,
        steps=steps, guidance=guidance, size=size,
    )  # fmt: skip
    from flows import erasing, showing_attack
    from flows.attack import AttackRequest

    answer(lambda: erasing.attack(asked(AttackRequest, options), no_prefect), as_json, showing_attack.print_attacks)
