"""The command line: conceptprune erase, rethreshold, show."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from flows.config import Request, Settings

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

Concept = Annotated[str, typer.Argument(help="The concept's slug in the catalog, such as fox or twemoji.")]
Store = Annotated[str | None, typer.Option(help="Directory that keeps everything. [default: conceptprune-store]")]
CatalogFile = Annotated[str | None, typer.Option("--catalog", help="A catalog's TOML file. [default: the bundled one]")]
Model = Annotated[str | None, typer.Option(help="A diffusers folder or a hub id. [default: the bundled model]")]
Revision = Annotated[str | None, typer.Option(help="For a hub id: the commit, all 40 hex digits.")]
Judge = Annotated[
    str | None, typer.Option(help="Folder of an image classifier that judges. [default: the bundled one]")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Dtype = Annotated[str, typer.Option(help="float32, float16 or bfloat16.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Prompts drawn at once; more need more memory. [default: 10]")]
Steps = Annotated[int | None, typer.Option(help="Inference steps. [default: the catalog's]")]
Window = Annotated[int | None, typer.Option(help="First denoiser calls to capture. [default: the catalog's, or all]")]
Guidance = Annotated[float | None, typer.Option(help="Classifier-free guidance scale. [default: the catalog's]")]
Size = Annotated[int | None, typer.Option(help="Height and width in pixels. [default: the model's]")]
Sparsity = Annotated[str | None, typer.Option(help="k, the share of each row that are candidates, e.g. 0.02 or 2%.")]
THat = Annotated[int | None, typer.Option("--t-hat", help="How many first steps vote.")]
VoteShare = Annotated[float | None, typer.Option(help="Share of them that must agree; 0 = any one (the paper).")]
Branch = Annotated[str | None, typer.Option(help="Guidance halves whose energies count: both, cond or uncond.")]
Evaluate = Annotated[bool, typer.Option("--evaluate/--no-evaluate", help="Draw and judge images before and after.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; all else goes to stderr.")]
NoPrefect = Annotated[bool, typer.Option("--no-prefect", help="Run the same steps as plain calls, without Prefect.")]


@app.command()
def erase(
    concept: Concept,
    store: Store = None,
    catalog: CatalogFile = None,
    model: Model = None,
    revision: Revision = None,
    judge: Judge = None,
    device: Device = None,
    dtype: Dtype = "float32",
    batch: Batch = None,
    steps: Steps = None,
    window: Window = None,
    guidance: Guidance = None,
    size: Size = None,
    sparsity: Sparsity = None,
    t_hat: THat = None,
    vote_share: VoteShare = None,
    branch: Branch = None,
    evaluate: Evaluate = True,
    as_json: Json = False,
    no_prefect: NoPrefect = False,
) -> None:
    """Erase a concept: capture what the store lacks, rank, mask, and show before and after.

    Run it again after an interruption: it does only what is missing.
    """
    options = dict(
        concept=concept, store=store, catalog=catalog, model=model, revision=revision, judge=judge, device=device,
        dtype=dtype, batch=batch, steps=steps, window=window, guidance=guidance, size=size, sparsity=sparsity,
        t_hat=t_hat, vote_share=vote_share, branch=branch, evaluate=evaluate,
    )  # fmt: skip
    from flows import erasing

    _answer(lambda: erasing.erase(_request(options), no_prefect), as_json)


@app.command()
def rethreshold(
    concept: Concept,
    sparsity: Sparsity = None,
    t_hat: THat = None,
    vote_share: VoteShare = None,
    branch: Branch = None,
    evaluate: Evaluate = False,
    store: Store = None,
    catalog: CatalogFile = None,
    model: Model = None,
    revision: Revision = None,
    judge: Judge = None,
    device: Device = None,
    batch: Batch = None,
    as_json: Json = False,
    no_prefect: NoPrefect = False,
) -> None:
    """Make another edit of a captured concept from the store alone, in seconds, without the model or a GPU.

    What is not given stays as in the concept's latest edit. With --evaluate the model draws and the judge judges again.
    """
    options = dict(
        concept=concept, store=store, catalog=catalog, model=model, revision=revision, judge=judge, device=device,
        batch=batch, sparsity=sparsity, t_hat=t_hat, vote_share=vote_share, branch=branch, evaluate=evaluate,
    )  # fmt: skip
    from flows import erasing

    def work() -> Any:
        if not evaluate:
            _refuse_drawing(catalog=catalog, model=model, revision=revision, judge=judge, device=device, batch=batch)
        return erasing.rethreshold(_request(options), no_prefect)

    _answer(work, as_json)


@app.command()
def show(concept: Concept, store: Store = None, as_json: Json = False) -> None:
    """Show what is captured and edited of a concept: densities by site, accuracies, and where the files are."""
    from flows import showing

    _answer(lambda: showing.describe(store or Settings.read().store, concept), as_json, showing.print_description)


def main() -> NoReturn:
    """The console script: exit code 0 done, 1 failed, 2 bad input."""
    sys.exit(app(standalone_mode=True))


def _request(options: dict[str, Any]) -> Request:
    defaults = Settings.read().model_dump()
    given = {key: value for key, value in options.items() if value is not None}
    return Request(**{**defaults, **given})


def _refuse_drawing(**options: Any) -> None:
    """A rethreshold that draws nothing reads neither model nor judge: whoever names one expects something else."""
    if given := [f"--{name}" for name, value in options.items() if value is not None]:
        raise ValueError(f"{', '.join(given)} only matters for drawing images; add --evaluate, or leave it out")


def _answer(work: Callable[[], Any], as_json: bool, printer: Callable[[Any], None] | None = None) -> None:
    """Run, then print for people or as JSON; bad input is one sentence and exit code 2."""
    from flows import showing
    from storage.edits import CorruptEdit
    from storage.zarrs import DamagedStore

    try:
        result = work()
    except (DamagedStore, CorruptEdit) as error:  # nothing that the user wrote: what was stored is damaged
        typer.echo(f"conceptprune: {error}", err=True)
        raise typer.Exit(1) from None
    except ValueError as error:
        typer.echo(f"conceptprune: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo("conceptprune: stopped; run the same command again to go on from here", err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps(result if isinstance(result, dict) else result.as_json(), sort_keys=True))
    else:
        (printer or showing.print_outcome)(result)


if __name__ == "__main__":
    main()
