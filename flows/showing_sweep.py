"""What people see of a sweep and of a combined edit in the terminal."""

from __future__ import annotations

from rich.table import Table

from flows.outcome import Outcome
from flows.showing import out, print_outcome
from flows.sweep_outcome import SweepOutcome, SweepPoint

SHOWN = 200  # densities that are printed: more are in the table and on the chart


def print_sweep(outcome: SweepOutcome) -> None:
    """The densities, a table a vote share; the judged points; which one to choose and why; where the charts are."""
    for share in sorted({point.vote_share for point in outcome.points}) if len(outcome.points) <= SHOWN else ():
        out.print(_densities(outcome, share))
    if outcome.judged:
        table = Table(title=f"{outcome.concept}: judged", title_justify="left", box=None, padding=(0, 2, 0, 0))
        for name in ("", "k", "t_hat", "share", "pruned", "erased", "kept", "edit"):
            table.add_column(name, no_wrap=True)
        for point in outcome.judged:
            table.add_row(*_judged(point))
        out.print(table)
    out.print(outcome.why, highlight=False, soft_wrap=True)
    if outcome.command:
        out.print(f"make it the latest edit: {outcome.command}", highlight=False, soft_wrap=True)
    for name, url in outcome.charts.items():
        out.print(f"{name:8} {url}", highlight=False, soft_wrap=True)
    out.print(f"table    {outcome.store}/tables/sweeps, {len(outcome.points)} points of sweep {outcome.sweep}",
              highlight=False, soft_wrap=True)  # fmt: skip


def print_combined(outcome: Outcome) -> None:
    """The edit, and how many weights of each erased concept the protected ones keep."""
    if outcome.manifest["prune"]["combined"]["protect"]:
        table = Table(title=f"{outcome.concept}: weights", title_justify="left", box=None, padding=(0, 2, 0, 0))
        protectors = list(outcome.manifest["prune"]["combined"]["protect"])
        for name in ("erased", "in its mask", "spared", *(f"by {slug}" for slug in protectors)):
            table.add_column(name, justify="left" if name == "erased" else "right")
        for slug, found in outcome.report["overlaps"].items():
            by = [f"{found['by'][protector]:,}" for protector in protectors]
            table.add_row(slug, f"{found['weights']:,}", f"{found['spared']:,}", *by)
        out.print(table)
    print_outcome(outcome)


def _densities(outcome: SweepOutcome, share: float) -> Table:
    """Densities by k and t_hat."""
    points = [point for point in outcome.points if point.vote_share == share]
    found = {(point.sparsity, point.t_hat): f"{point.density:.2%}" for point in points}
    title = f"pruned at vote share {share:g}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    t_hats = sorted({point.t_hat for point in points})
    for name in ("k \\ t_hat", *map(str, t_hats)):
        table.add_column(name, justify="right", no_wrap=True)
    for k in sorted({point.sparsity for point in points}, key=float):
        table.add_row(k, *(found[k, t_hat] for t_hat in t_hats))
    return table


def _judged(point: SweepPoint) -> list[str]:
    made = [point.sparsity, str(point.t_hat), f"{point.vote_share:g}"]
    found = [f"{share or 0:.0%}" for share in (point.erased, point.kept)]
    return ["*" if point.chosen else "", *made, f"{point.density:.2%}", *found, point.row.edit if point.row else ""]
