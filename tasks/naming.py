"""Names of task runs, as Prefect's UI shows them, and words as people list them."""

from __future__ import annotations

from typing import Any

from tasks.diffusion.slots import ranges


def run_name(template: str, slots: str) -> Any:
    """A task_run_name: the template filled with the task's parameters, the one named `slots` as ranges.

    >>> run_name("capture-{of}-{slots}", "slots")({"of": "fox", "slots": [0, 1, 2]})
    'capture-fox-0-2'
    """

    def name(parameters: dict[str, Any]) -> str:
        return template.format(**{**parameters, slots: ranges(parameters[slots])})

    return name  # Prefect calls any function of `parameters`; its type asks for a class of its own


def words(text: str | None) -> list[str] | None:
    """The words between commas; None if the option was not given.

    >>> words("0.01, 5%,"), words(None)
    (['0.01', '5%'], None)
    """
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]
