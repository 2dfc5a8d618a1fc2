"""What people see of catalogs' files in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows.showing import out


def print_kinds(found: Mapping[str, Any]) -> None:
    """A paragraph a kind: its catalog, its settings, its templates and their source."""
    for row in found["kinds"]:
        share = f"k {float(row['sparsity']) * 100:g} %, t_hat {row['t_hat']}, vote_share {row['vote_share']:g}"
        head = f"{row['catalog']}: kind {row['kind']}, {row['concepts']} concepts, {row['pairs']} pairs, {share}"
        out.print(f"[bold]{head}[/bold]", highlight=False, soft_wrap=True)
        for name in ("reference", "target", "source"):
            text = row[name] if name == "source" else f'"{row[name]}"'
            out.print(f"  {name:<9} {text}", highlight=False, soft_wrap=True, markup=False)


def print_added(added: Mapping[str, Any]) -> None:
    """What was written, and what comes next."""
    judged = f"{added['evaluation']} to evaluate with" if added["evaluation"] else "none to evaluate with"
    out.print(
        f"{added['catalog']}{' (new)' if added['new'] else ''}: {added['concept']}, {added['reference']} reference and "
        f"{added['target']} target prompts, {judged}",
        highlight=False,
        soft_wrap=True,
    )
    then = "" if added["evaluation"] else " --no-evaluate"
    out.print(
        f"next: conceptprune erase {added['concept']} --catalog {added['catalog']}{then}",
        highlight=False,
        soft_wrap=True,
    )
