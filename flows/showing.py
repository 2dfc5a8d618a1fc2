"""What people see in the terminal: progress, the table of an edit, and what the store knows of a concept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from flows.outcome import Outcome, rows
from flows.steps import Progress as ShowProgress
from storage.activations import ActivationStore
from storage.edits import Edit, latest, list_edits

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

        yield show


def print_outcome(outcome: Outcome) -> None:
    """The edit: where it is, how much it prunes, and what the judge saw."""
    prune, (done, total) = outcome.manifest["prune"], outcome.pruned
    if table_rows := rows(outcome):
        table = Table(title=f"{outcome.concept} erased", title_justify="left")
        for name, justify in (("judged right", "left"), ("before", "right"), ("after", "right"), ("n", "right")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        for row in table_rows:
            table.add_row(*row)
        out.print(table)
    out.print(
        f"pruned {done:,} of {total:,} weights of {len(outcome.report['sites'])} sites ({done / total:.2%}); "
        f"sparsity {prune['sparsity']}, t_hat {prune['t_hat']}, vote_share {prune['vote_share']}, "
        f"branch {prune['branch']}",
        soft_wrap=True,
    )
    if not table_rows:
        out.print("no images were drawn and nothing was judged: --evaluate does both")
    out.print(f"edit    {outcome.url}", soft_wrap=True)
    if outcome.sheet:
        out.print(f"images  {outcome.sheet}", soft_wrap=True)


def describe(store: str, concept: str) -> dict[str, Any]:
    """All that a store knows of a concept, as JSON values. Raises ValueError when it knows nothing."""
    edits = list_edits(store, concept=concept)
    if not edits:
        raise ValueError(f"there is no edit of {concept} in {store}; run conceptprune erase {concept} first")
    outcomes = [Outcome.of(edit) for edit in edits]
    return {
        "concept": concept,
        "captures": _captures(store, edits),
        "edits": [
            {**outcome.as_json(), "created": outcome.manifest["created"], "model": outcome.manifest["model"]["key"],
             "latest": outcome.edit == latest(store, outcome.manifest["model"]["key"], concept)}
            for outcome in outcomes
        ],
    }  # fmt: skip


def print_description(found: dict[str, Any]) -> None:
    """A concept's captures, its edits, and the densities by site of the latest."""
    table = Table(title=f"{found['concept']}: captured", title_justify="left")
    for name in ("role", "prompts", "steps", "store"):
        table.add_column(name, overflow="fold")
    for capture in found["captures"]:
        table.add_row(
            capture["role"], f"{capture['complete']}/{capture['prompts']}", str(capture["steps"]), capture["url"]
        )
    out.print(table)
    table = Table(
        title=f"{found['concept']}: edits (* the latest)", title_justify="left", box=None, padding=(0, 2, 0, 0)
    )
    for name in ("", "edit", "k", "t_hat", "share", "pruned", "concept", "others"):
        table.add_column(name, no_wrap=True)
    for edit in found["edits"]:
        table.add_row(*_edit_row(edit))
    out.print(table)
    newest = next((edit for edit in found["edits"] if edit["latest"]), found["edits"][-1])
    table = Table(title=f"{newest['edit']}: densities by site", title_justify="left")
    for name in ("site", "neurons", "weights", "pruned", "density"):
        table.add_column(name, justify="left" if name == "site" else "right", overflow="fold")
    for name, site in newest["report"]["sites"].items():
        density = f"{site['pruned'] / site['weights']:.2%}"
        table.add_row(name, f"{site['width']:,}", f"{site['weights']:,}", f"{site['pruned']:,}", density)
    out.print(table)
    out.print(f"files   {newest['url']}", soft_wrap=True)


def _edit_row(edit: dict[str, Any]) -> list[str]:
    sites, evaluation = edit["report"]["sites"].values(), edit["report"]["evaluation"]
    density = sum(site["pruned"] for site in sites) / sum(site["weights"] for site in sites)
    shares = [f"{evaluation[part]['before']:.0%} -> {evaluation[part]['after']:.0%}" if evaluation else "-"
              for part in ("concept", "others")]  # fmt: skip
    prune = edit["prune"]
    return ["*" if edit["latest"] else "", edit["edit"], prune["sparsity"], str(prune["t_hat"]),
            str(prune["vote_share"]), f"{density:.2%}", *shares]  # fmt: skip


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
