"""What people see in the terminal: progress, the table of an edit, and what the store knows of a concept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from flows.catalog_plan import CatalogCost
from flows.outcome import Outcome, rows
from flows.steps import Progress as ShowProgress
from flows.tabling import CatalogOutcome, parts, settings
from storage.activations import ActivationStore
from storage.edits import Edit, latest, read_edit_at
from storage.listing import list_edits

BARS = 6  # that stay when they are full

out = Console()
err = Console(stderr=True)


@contextmanager
def progress_bars() -> Iterator[ShowProgress]:
    """A bar a stage on stderr; outside a terminal, a line when a stage is done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=err, disable=not err.is_terminal) as bars:
        stages: dict[str, Any] = {}

        def show(stage: str, done: int, total: int) -> None:
            if total == 0:
                return
            if stage not in stages:
                stages[stage] = bars.add_task(stage, total=total)
            bars.update(stages[stage], completed=done)
            if done == total and not err.is_terminal:
                err.print(f"{stage}: {total} done")
            if done == total and len(stages) > BARS:
                bars.update(stages[stage], visible=False)

        yield show


def print_outcome(outcome: Outcome) -> None:
    """The edit: where it is, how much it prunes, and what the judge saw."""
    done, total = outcome.pruned
    if table_rows := rows(outcome):
        table = Table(title=f"{outcome.concept} erased", title_justify="left")
        for name, justify in (("judged right", "left"), ("before", "right"), ("after", "right"), ("n", "right")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        for row in table_rows:
            table.add_row(*row)
        out.print(table)
    out.print(
        f"pruned {done:,} of {total:,} weights of {len(outcome.report['sites'])} sites ({done / total:.2%}); "
        f"{settings(outcome.manifest['prune'])}",
        soft_wrap=True,
    )
    if not table_rows and "combined" not in outcome.manifest["prune"]:
        out.print("no images were drawn and nothing was judged: --evaluate does both")
    out.print(f"edit    {outcome.url}", soft_wrap=True)
    if outcome.sheet:
        out.print(f"images  {outcome.sheet}", soft_wrap=True)


def print_cost(cost: CatalogCost) -> None:
    """What a run over a catalog would do."""
    for line in cost.lines():
        out.print(line, highlight=False, soft_wrap=True)
    _print_failures(cost.refused, "cannot be run")


def print_catalog(outcome: CatalogOutcome) -> None:
    """A row a concept, then those that failed; a single edit is shown in full."""
    if len(outcome.rows) == 1 and not outcome.failed:
        print_outcome(Outcome.of(read_edit_at(outcome.rows[0].url)))
        return
    table = Table(title=f"{outcome.name}: edits", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("concept", "k", "t_hat", "share", "pruned", "erased", "others", "edit"):
        table.add_column(name, no_wrap=True)
    for row in outcome.rows:
        table.add_row(
            row.concept, *map(_number, (row.sparsity, row.t_hat, row.vote_share)), f"{row.density:.2%}",
            _change(row.concept_before, row.concept_after), _change(row.others_before, row.others_after), row.edit,
        )  # fmt: skip
    out.print(table)
    out.print(
        f"concepts that have their edit: {len(outcome.rows)}, {outcome.made} made now; prompt sets captured: "
        f"{outcome.captured}; all rows are in {outcome.store}/tables/edits",
        highlight=False,
        soft_wrap=True,
    )
    _print_failures(outcome.failed, "failed")


def _print_failures(failed: Mapping[str, str], what: str) -> None:
    for slug, why in failed.items():
        err.print(f"{slug} {what}: {why}", highlight=False, soft_wrap=True)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _change(before: float | None, after: float | None) -> str:
    return "-" if before is None or after is None else f"{before:.0%} -> {after:.0%}"


def describe(store: str, concept: str, plots: str | None = None) -> dict[str, Any]:
    """All that a store knows of a concept, as JSON values; `plots` is a folder to draw it into.

    Raises ValueError when it knows nothing, or the folder cannot be written.
    """
    edits = list_edits(store, concept=concept)
    if not edits:
        raise ValueError(f"there is no edit of {concept} in {store}; run conceptprune erase {concept} first")
    outcomes = [Outcome.of(edit) for edit in edits]
    drawn = {} if plots is None else _draw(store, concept, plots)
    return {
        **drawn,
        "concept": concept,
        "captures": _captures(store, edits),
        "edits": [
            {**outcome.as_json(), "created": outcome.manifest["created"], "model": outcome.manifest["model"]["key"],
             "latest": outcome.edit == latest(store, outcome.manifest["model"]["key"], concept)}
            for outcome in outcomes
        ],
    }  # fmt: skip


def _draw(store: str, concept: str, folder: str) -> dict[str, Any]:
    from tasks.plotting import SECONDS, plot_concept  # matplotlib takes a second to import

    err.print(f"drawing; the bootstrap of the prompts may take {SECONDS:.0f} s", highlight=False)
    return plot_concept(store, concept, folder).as_json()


def print_description(found: dict[str, Any]) -> None:
    """A concept's captures, its edits, and the densities by site of the latest."""
    if found["captures"]:
        _print_captures(found)
    table = Table(
        title=f"{found['concept']}: edits (* the latest)", title_justify="left", box=None, padding=(0, 2, 0, 0)
    )
    for name in ("", "edit", "k", "t_hat", "share", "pruned", "concept", "others"):
        table.add_column(name, no_wrap=True)
    for edit in found["edits"]:
        table.add_row(*_edit_row(edit))
    out.print(table)
    newest = next((edit for edit in found["edits"] if edit["latest"]), found["edits"][-1])
    if "combined" in newest["prune"]:
        out.print(f"{newest['edit']} combines {parts(newest['prune'])}", highlight=False, soft_wrap=True)
    table = Table(title=f"{newest['edit']}: densities by site", title_justify="left")
    for name in ("site", "neurons", "weights", "pruned", "density"):
        table.add_column(name, justify="left" if name == "site" else "right", overflow="fold")
    for name, site in newest["report"]["sites"].items():
        density = f"{site['pruned'] / site['weights']:.2%}"
        table.add_row(name, f"{site['width']:,}", f"{site['weights']:,}", f"{site['pruned']:,}", density)
    out.print(table)
    out.print(f"files   {newest['url']}", soft_wrap=True)
    for url in found.get("plots", {}).values():
        out.print(f"plot    {url}", highlight=False, soft_wrap=True)
    for note in found.get("notes", ()):
        out.print(f"note    {note}", highlight=False, soft_wrap=True)


def _print_captures(found: dict[str, Any]) -> None:
    table = Table(title=f"{found['concept']}: captured", title_justify="left")
    for name in ("role", "prompts", "steps", "store"):
        table.add_column(name, overflow="fold")
    for capture in found["captures"]:
        table.add_row(
            capture["role"], f"{capture['complete']}/{capture['prompts']}", str(capture["steps"]), capture["url"]
        )
    out.print(table)


def _edit_row(edit: dict[str, Any]) -> list[str]:
    sites, evaluation = edit["report"]["sites"].values(), edit["report"]["evaluation"]
    density = sum(site["pruned"] for site in sites) / sum(site["weights"] for site in sites)
    judged = [evaluation[part] if evaluation else {} for part in ("concept", "others")]
    shares = [_change(part.get("before"), part.get("after")) for part in judged]
    made = [str(edit["prune"].get(name, "-")) for name in ("sparsity", "t_hat", "vote_share")]
    return ["*" if edit["latest"] else "", edit["edit"], *made, f"{density:.2%}", *shares]


def _captures(store: str, edits: list[Edit]) -> list[dict[str, Any]]:
    """The prompt sets that the edits rest on, each once."""
    keys = {(edit.manifest["profile"], role, digest) for edit in edits
            for role, digest in edit.manifest["prompt_sets"].items()}  # fmt: skip
    found = []
    for profile, role, digest in sorted(keys):
        activations = ActivationStore(store, profile, digest)
        if not activations.exists():
            continue
        sizes = activations.open().sizes
        complete = sizes["prompt"] - len(activations.pending())
        found.append({"role": role, "prompts": sizes["prompt"], "complete": complete, "steps": sizes["step"],
                      "url": activations.url})  # fmt: skip
    return found
