"""Choices of numbered things, such as prompts or steps, as people write them: "0-9,15"."""

from __future__ import annotations

import re
from collections.abc import Sequence


def canonical_slots(text: str, what: str = "prompts") -> str:
    """A choice of slots, or of `what` else is numbered, in its one spelling: equal choices have equal digests.

    >>> canonical_slots("7, 0-2,3,5-5")
    '0-3,5,7'

    Raises ValueError if it is none, or chooses nothing.
    """
    slots: set[int] = set()
    for part in text.replace(" ", "").split(","):
        found = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part)
        if not found or int(found[2] or found[1]) < int(found[1]):
            raise ValueError(f"{what} {text!r} is no choice; give numbers and ranges from 0, such as 0-9,15")
        slots.update(range(int(found[1]), int(found[2] or found[1]) + 1))
    return ranges(sorted(slots))


def slots_of(choice: str, size: int, what: str = "prompts") -> list[int]:
    """The slots of a choice in a set of `size` prompts, or of `what` else is numbered.

    >>> slots_of("0-2,5", 6)
    [0, 1, 2, 5]

    Raises ValueError if the set has no such slot.
    """
    parts = (part.partition("-") for part in canonical_slots(choice, what).split(","))
    slots = [slot for first, _, last in parts for slot in range(int(first), int(last or first) + 1)]
    if slots[-1] >= size:
        raise ValueError(f"{what} {choice} asks for {slots[-1]}, but there are {size}, 0 to {size - 1}")
    return slots


def ranges(slots: Sequence[int]) -> str:
    """Slots as people write them.

    >>> ranges([0, 1, 2, 3]), ranges([4]), ranges([0, 1, 5, 7, 8]), ranges([])
    ('0-3', '4', '0-1,5,7-8', '')
    """
    found: list[list[int]] = []
    for slot in slots:
        if found and slot == found[-1][1] + 1:
            found[-1][1] = slot
        else:
            found.append([slot, slot])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in found)
