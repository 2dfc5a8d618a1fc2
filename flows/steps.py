"""How a flow's body calls its tasks: tracked by Prefect, or as plain functions (--no-prefect).

The same body serves both.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol


class Call(Protocol):
    """Runs one task with its arguments."""

    def __call__(self, task: Any, *args: Any) -> Any:
        """The task's result."""


class Progress(Protocol):
    """Shows how far a long stage is."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """`done` of `total` are ready."""


def plain(task: Any, *args: Any) -> Any:
    """Call the task's function, without Prefect."""
    return task.fn(*args)


def tracked(task: Any, *args: Any) -> Any:
    """Call the task inside the running flow: its state, retries and logs are Prefect's."""
    return task(*args)


def silent(stage: str, done: int, total: int) -> None:
    """Shows nothing."""


progress: ContextVar[Progress] = ContextVar("progress", default=silent)
"""The progress display of this thread's run: a flow's parameters are plain values, so it cannot be one."""


@dataclass(frozen=True)
class Steps:
    """The way that one run calls its tasks and shows its progress, and the seconds that its stages took."""

    call: Call = plain
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 3)

    def in_turn(self, stage: str, task: Any, args: tuple[Any, ...], slots: Sequence[int], size: int) -> list[Any]:
        """Call a task with every `size` slots as its last argument, one after the other: the model uses every core."""
        out = []
        show = progress.get()
        show(stage, 0, len(slots))
        for start in range(0, len(slots), size):
            out.append(self.call(task, *args, list(slots[start : start + size])))
            show(stage, min(start + size, len(slots)), len(slots))
        return out
