"""What people see of an edit's collateral in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from flows.showing import out


def print_collateral(found: Mapping[str, Any]) -> None:
    """A row a concept, the edit's own first, then what is touched most."""
    title = f"{found['concept']}, edit {found['edit']}: what it takes from others"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for name in ("concept", "shared", "importance", "excess", "edit"):
        table.add_column(name, justify="left" if name in ("concept", "edit") else "right", no_wrap=True)
    for row in (found["own"], *found["others"]):
        numbers = ["" if row[name] is None else f"{row[name]:.1%}" for name in ("shared", "importance", "excess")]
        table.add_row(row["concept"], *numbers, row["edit"])
    out.print(table)
    if not found["others"]:
        out.print("there is no other concept of this model in the store", highlight=False, soft_wrap=True)
