"""What people see of published edits and imported models in the terminal."""

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


def print_imported(imported: Mapping[str, Any]) -> None:
    """Where the folder is, and what it was made of."""
    size = f"{imported['size'] / 1e9:.2f} GB" if imported["size"] > 1e8 else f"{imported['size'] / 1e6:.1f} MB"
    out.print(
        f"{imported['model']}: imported from a checkpoint of {size}, sha256 {imported['sha256']}",
        highlight=False,
        soft_wrap=True,
    )
