"""What people see of a tuning in the terminal."""

from __future__ import annotations

from rich.table import Table

from flows.showing import out
from flows.tune_outcome import Candidate, Shares, TuneOutcome


def print_tune(outcome: TuneOutcome) -> None:
    """The candidates, lowest density first; which was chosen and why; what held-out prompts say."""
    title = f"{outcome.concept}: {len(outcome.candidates)} of {outcome.grid} settings judged"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("", "k", "t_hat", "share", "branch", "pruned", "erased", "kept", "held out: erased", "kept"):
        table.add_column(name, no_wrap=True)
    for one in sorted(outcome.candidates, key=lambda one: one.density):
        table.add_row(*_row(one))
    out.print(table)
    for line in (outcome.why, outcome.held_out):
        out.print(line, highlight=False, soft_wrap=True)
    out.print("* chosen, p the catalog's settings; shares of the unedited model's", highlight=False, soft_wrap=True)
    out.print(f"edit     {outcome.url}", highlight=False, soft_wrap=True)
    out.print(f"tradeoff {outcome.chart}", highlight=False, soft_wrap=True)


def _row(one: Candidate) -> list[str]:
    mark = ("*" if one.chosen else "") + ("p" if one.preset else "")
    found = [*_shares(one.validation), *_shares(one.held_out)]
    return [mark, one.sparsity, str(one.t_hat), f"{one.vote_share:g}", one.branch, f"{one.density:.2%}", *found]


def _shares(found: Shares | None) -> list[str]:
    return ["", ""] if found is None else [f"{found.erased:.0%}", f"{found.kept:.0%}"]
