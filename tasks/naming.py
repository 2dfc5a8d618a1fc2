"""Names of task runs, as Prefect's UI shows them."""

from __future__ import annotations

from collections.abc import Sequence


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
