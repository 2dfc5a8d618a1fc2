"""What people see of attacks in the terminal."""

from __future__ import annotations

from rich.table import Table

from flows.attack_outcome import AttackOutcome, share_of
from flows.showing import out


def print_attacks(outcome: AttackOutcome) -> None:
    """A row an attack: the concept's share without it and with it, and by the unedited model."""
    title = f"{outcome.concept}: pictures that show it, 95 % intervals"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("attack", "steps", "edited", "attacked", "unedited", "n"):
        table.add_column(name, justify="left" if name == "attack" else "right", no_wrap=True)
    for row in outcome.rows:
        shares = (share_of(row, "before"), share_of(row, "after"), f"{row.unedited:.0%}")
        table.add_row(row.attack, str(row.budget), *shares, str(row.n))
    out.print(table)
    out.print(f"edit      {outcome.url}", highlight=False, soft_wrap=True)
    for row in outcome.rows:
        out.print(f"{row.attack:9} {row.url}", highlight=False, soft_wrap=True)
