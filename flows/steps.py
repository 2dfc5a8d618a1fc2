"""How a flow's body calls its tasks: tracked by Prefect, or as plain functions (--no-prefect).

The same body serves both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from flows.config import Settings

LEASE = 120  # s; how long the slot of a run that was killed stays taken


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


class NoLimit(ValueError):
    """The limit that a run was told to keep is not there, or not enforced."""


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

    def show(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is."""
        progress.get()(stage, done, total)

    @contextmanager
    def gpu_slot(self) -> Iterator[None]:
        """Hold a slot of the limit that CONCEPTPRUNE_GPU_LIMIT names; nothing is limited where that is not set.

        Raises NoLimit, rather than run without one, if Prefect would not enforce the limit.
        """
        if (name := Settings.read().gpu_limit) is None:
            yield
            return
        if self.call is not tracked:
            raise NoLimit(f"CONCEPTPRUNE_GPU_LIMIT is {name!r}, which only Prefect can keep; unset it for --no-prefect")
        from prefect.concurrency.sync import concurrency

        _check_limit(name)
        with concurrency(name, occupy=1, lease_duration=LEASE, strict=True):
            yield

    def part(self, flow: Any, args: tuple[Any, ...], body: Callable[[], Any]) -> None:
        """A part of the run with a state of its own: the flow as Prefect's subflow, or the body as a plain call."""
        if self.call is tracked:
            flow(*args)
        else:
            body()

    def in_turn(self, stage: str, task: Any, args: tuple[Any, ...], slots: Sequence[Any], size: int) -> list[Any]:
        """Call a task with every `size` slots as its last argument, one after the other: each uses every core."""
        out = []
        self.show(stage, 0, len(slots))
        for start in range(0, len(slots), size):
            out.append(self.call(task, *args, list(slots[start : start + size])))
            self.show(stage, min(start + size, len(slots)), len(slots))
        return out


def ended(document: dict[str, Any], failure: Exception | None) -> dict[str, Any]:
    """What a flow returns: its document, or a state that has failed in a sentence; whoever called the flow gets the
    failure raised. Raised in the flow it would be logged with a traceback, as what nobody foresaw.
    """
    if failure is None:
        return document
    from prefect.states import Failed

    return cast(dict[str, Any], Failed(message=str(failure), data=failure))  # Prefect takes a state for a result


def _check_limit(name: str) -> None:
    """Raises NoLimit unless the limit is there and active: an inactive one would hand out slots without end."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            active = client.read_global_concurrency_limit_by_name(name).active
        except ObjectNotFound:
            active = None
    if not active:
        found = "does not exist" if active is None else "is disabled"
        raise NoLimit(
            f"CONCEPTPRUNE_GPU_LIMIT is {name!r}, but that global concurrency limit {found}; "
            f"prefect gcl {'enable ' + name if active is False else 'create ' + name + ' --limit 1'}, or unset it"
        )
