"""What people see in the terminal of a store that was looked after."""

from __future__ import annotations

from flows.maintain import Upkeep
from flows.showing import out


def print_upkeep(found: Upkeep) -> None:
    """How much was verified, what is damaged, and what was done."""
    lines = [f"{found.edits} edits and pointers of {found.store} verified, {len(found.damaged)} damaged"]
    lines += [f"damaged  {why}" for why in found.damaged.values()]
    lines += [f"pending  slots {', '.join(map(str, slots))} of {url}" for url, slots in found.reset.items()]
    lines += [f"deleted  {what}" for what in (*found.rankings, *found.leftovers)]
    for line in lines:
        out.print(line, highlight=False, soft_wrap=True)
