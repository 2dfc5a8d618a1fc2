"""What people see of a published edit in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows.showing import out
from tasks.publishing import WARNING


def print_published(published: Mapping[str, Any]) -> None:
    """What was written where, and what it is not."""
    what = f"{published['concept']}, edit {published['edit']}, as {published['form']}"
    out.print(
        f"{what}: {len(published['files'])} files in {published['to']}",
        highlight=False,
        soft_wrap=True,
    )
    out.print(WARNING, highlight=False, soft_wrap=True)
