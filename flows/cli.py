"""The command line: conceptprune erase, catalog, rethreshold, sweep and the other commands."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import typer

from flows import (
    commands_attack,
    commands_catalog,
    commands_collateral,
    commands_evaluate,
    commands_import,
    commands_maintain,
    commands_observe,
    commands_publish,
    commands_report,
    commands_sites,
    commands_sweep,
    commands_tune,
)
from flows import options as o
from flows.answering import answer, asked, refuse_drawing
from flows.config import CatalogRequest, Request, Settings
from tasks.naming import words

app = typer.Typer(
    name="conceptprune",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=(
        "Erase a concept from a text-to-image diffusion model by pruning its skilled neurons "
        "(ConceptPrune, ICLR 2025).\n\n"
        "Start with [bold]conceptprune erase fox[/bold]: it erases the fox from the bundled model and shows it. "
        "Activations are kept in the store, so that "
        "[bold]conceptprune rethreshold fox --sparsity 0.03[/bold] needs no model."
    ),
)
catalog_app = typer.Typer(no_args_is_help=True, help="Work through a catalog: a file of many concepts.")
app.add_typer(catalog_app, name="catalog")


@app.command()
def erase(
    concept: o.Concept,
    store: o.Store = None,
    catalog: o.CatalogFile = None,
    model: o.Model = None,
    revision: o.Revision = None,
    variant: o.Variant = None,
    judge: o.Judge = None,
    device: o.Device = None,
    offload: o.Offload = None,
    slicing: o.Slicing = None,
    dtype: o.Dtype = "float32",
    batch: o.Batch = None,
    steps: o.Steps = None,
    window: o.Window = None,
    guidance: o.Guidance = None,
    size: o.Size = None,
    sparsity: o.Sparsity = None,
    t_hat: o.THat = None,
    vote_share: o.VoteShare = None,
    branch: o.Branch = None,
    kinds: o.Kinds = None,
    include: o.Include = None,
    exclude: o.Exclude = None,
    padding: o.Padding = None,
    evaluate: o.Evaluate = True,
    as_json: o.Json = False,
    no_prefect: o.NoPrefect = False,
) -> None:
    """Erase a concept: capture what the store lacks, rank, mask, and show before and after.

    Run it again after an interruption: it does only what is missing.
    """
    options = dict(
        concept=concept, store=store, catalog=catalog, model=model, revision=revision, variant=variant, judge=judge,
        device=device, offload=offload, slicing=slicing, dtype=dtype, batch=batch, steps=steps, window=window,
        guidance=guidance, size=size, sparsity=sparsity, t_hat=t_hat, vote_share=vote_share, branch=branch,
        kinds=kinds, include=include, exclude=exclude, padding=padding, evaluate=evaluate,
    )  # fmt: skip
    from flows import erasing

    answer(lambda: erasing.erase(asked(Request, options), no_prefect), as_json)


@catalog_app.command("check")
def catalog_check(
    file: o.CatalogArgument,
    concepts: o.Only = None,
    store: o.Store = None,
    model: o.Model = None,
    revision: o.Revision = None,
    variant: o.Variant = None,
    judge: o.Judge = None,
    dtype: o.Dtype = "float32",
    steps: o.Steps = None,
    window: o.Window = None,
    guidance: o.Guidance = None,
    size: o.Size = None,
    kinds: o.Kinds = None,
    padding: o.Padding = None,
    evaluate: o.Evaluate = True,
    as_json: o.Json = False,
) -> None:
    """Check a catalog and say what a run would capture, reuse, store and cost. Nothing is loaded or written."""
    options = dict(
        catalog=file, concepts=words(concepts), store=store, model=model, revision=revision, variant=variant,
        judge=judge, dtype=dtype, steps=steps, window=window, guidance=guidance, size=size, kinds=kinds,
        padding=padding, evaluate=evaluate,
    )  # fmt: skip
    from flows import erasing, showing

    answer(lambda: erasing.check_catalog(asked(CatalogRequest, options)).cost(), as_json, showing.print_cost)


@catalog_app.command("erase")
def catalog_erase(
    file: o.CatalogArgument,
    concepts: o.Only = None,
    store: o.Store = None,
    model: o.Model = None,
    revision: o.Revision = None,
    variant: o.Variant = None,
    judge: o.Judge = None,
    device: o.Device = None,
    offload: o.Offload = None,
    slicing: o.Slicing = None,
    dtype: o.Dtype = "float32",
    batch: o.Batch = None,
    steps: o.Steps = None,
    window: o.Window = None,
    guidance: o.Guidance = None,
    size: o.Size = None,
    sparsity: o.Sparsity = None,
    t_hat: o.THat = None,
    vote_share: o.VoteShare = None,
    branch: o.Branch = None,
    kinds: o.Kinds = None,
    include: o.Include = None,
    exclude: o.Exclude = None,
    padding: o.Padding = None,
    evaluate: o.Evaluate = True,
    workers: o.Workers = None,
    as_json: o.Json = False,
    no_prefect: o.NoPrefect = False,
) -> None:
    """Erase every concept of a catalog, each by an edit of its own; prompt sets that concepts share are captured once.

    A concept that fails is named at the end and leaves the others alone. Run it again: it does only what is missing.
    """
    options = dict(
        catalog=file, concepts=words(concepts), store=store, model=model, revision=revision, variant=variant,
        judge=judge, device=device, offload=offload, slicing=slicing, dtype=dtype, batch=batch, steps=steps,
        window=window, guidance=guidance, size=size, sparsity=sparsity, t_hat=t_hat, vote_share=vote_share,
        branch=branch, kinds=kinds, include=include, exclude=exclude, padding=padding, evaluate=evaluate,
        workers=workers,
    )  # fmt: skip
    from flows import erasing, showing

    answer(lambda: erasing.erase_catalog(asked(CatalogRequest, options), no_prefect), as_json, showing.print_catalog)


@app.command()
def rethreshold(
    concepts: o.Concepts = None,
    every: o.EveryConcept = False,
    sparsity: o.Sparsity = None,
    t_hat: o.THat = None,
    vote_share: o.VoteShare = None,
    branch: o.Branch = None,
    kinds: o.Kinds = None,
    include: o.Include = None,
    exclude: o.Exclude = None,
    prompts: o.Prompts = None,
    evaluate: o.Evaluate = False,
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
    """Make other edits of captured concepts from the store alone, in seconds, without the model or a GPU.

    What is not given stays as in a concept's latest edit. With --evaluate the model draws and the judge judges again.
    """
    drawing = dict(
        catalog=catalog, model=model, revision=revision, variant=variant, judge=judge, device=device, offload=offload,
        slicing=slicing, batch=batch,
    )  # fmt: skip
    options = dict(
        concepts=concepts or None, store=store, sparsity=sparsity, t_hat=t_hat, vote_share=vote_share, branch=branch,
        kinds=kinds, include=include, exclude=exclude, prompts=prompts, evaluate=evaluate, **drawing,
    )  # fmt: skip
    from flows import erasing, showing

    def work() -> Any:
        if bool(concepts) == every:
            raise ValueError("which concepts? Give their slugs, such as fox panda, or --all for all in the store")
        if not evaluate:
            refuse_drawing(**drawing)
        return erasing.rethreshold(asked(CatalogRequest, options), no_prefect)

    answer(work, as_json, showing.print_catalog)


catalog_app.command("list")(commands_catalog.catalog_list)
catalog_app.command("add")(commands_catalog.catalog_add)
app.command()(commands_sweep.sweep)
app.command()(commands_sweep.combine)
app.command()(commands_observe.observe)
app.command()(commands_maintain.maintain)
app.command()(commands_attack.attack)
app.command()(commands_tune.tune)
app.command()(commands_collateral.collateral)
app.command()(commands_evaluate.evaluate)
app.command("import")(commands_import.import_model)
app.command()(commands_publish.publish)
app.command()(commands_report.report)
app.command()(commands_sites.sites)


@app.command()
def show(concept: o.Concept, plots: o.Plots = None, store: o.Store = None, as_json: o.Json = False) -> None:
    """Show what is captured and edited of a concept: densities by site, accuracies, and where the files are.

    With --plots DIR also as pictures: energies by step, skilled shares, overlaps with other concepts, stability.
    """
    from flows import showing

    answer(lambda: showing.describe(store or Settings.read().store, concept, plots), as_json, showing.print_description)


def main() -> NoReturn:
    """The console script: exit code 0 done, 1 failed, 2 bad input."""
    sys.exit(app(standalone_mode=True))


if __name__ == "__main__":
    main()
