"""Names of task runs, as Prefect's UI shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


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


def run_name(template: str, slots: str) -> Any:
    """A task_run_name: the template filled with the task's parameters, the one named `slots` as ranges.

    >>> run_name("capture-{of}-{slots}", "slots")({"of": "fox", "slots": [0, 1, 2]})
    'capture-fox-0-2'
    """

    def name(parameters: dict[str, Any]) -> str:
        return template.format(**{**parameters, slots: ranges(parameters[slots])})

    return name  # Prefect calls any function of `parameters`; its type asks for a class of its own
