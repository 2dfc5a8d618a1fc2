"""What people see of an evaluation in the terminal."""

from __future__ import annotations

from rich.table import Table

from flows.evaluation_outcome import EvaluationOutcome, text_of
from flows.showing import out


def print_evaluation(outcome: EvaluationOutcome) -> None:
    """A row a number with its interval, and where the evidence is."""
    table = Table(
        title=f"{outcome.concept}, edit {outcome.edit}: each number with its 95 % interval", title_justify="left"
    )
    table.add_column("metric")
    table.add_column("prompts")
    for name in ("before", "after", "change", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in outcome.rows:
        what = f"  {row.group}" if row.group else row.metric
        after, before = text_of(row, "after"), text_of(row, "before")
        table.add_row(what, row.part, before or "distance", after, text_of(row, "change"), str(row.n))
    out.print(table)
    for url in dict.fromkeys(row.url for row in outcome.rows):
        out.print(f"measured  {url}", highlight=False, soft_wrap=True)
