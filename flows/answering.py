"""How a command answers: one sentence and an exit code for what is wrong, a table or JSON for what is done."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from flows.config import Settings

Asked = TypeVar("Asked", bound=BaseModel)


def asked(kind: type[Asked], options: Mapping[str, Any]) -> Asked:
    """The request that the given options make, the settings where an option is not given.

    Raises ValueError in one sentence.
    """
    known = {name: value for name, value in Settings.options().items() if name in kind.model_fields}
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return kind(**{**known, **given})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise ValueError(f"{name} is {first['input']!r}: {first['msg']}; see --help") from None


def refuse_drawing(**options: Any) -> None:
    """A rethreshold that draws nothing reads neither model nor judge: whoever names one expects something else."""
    if given := [f"--{name}" for name, value in options.items() if value is not None]:
        raise ValueError(f"{', '.join(given)} only matters for drawing images; add --evaluate, or leave it out")


def answer(work: Callable[[], Any], as_json: bool, printer: Callable[[Any], None] | None = None) -> None:
    """Run, then print for people or as JSON: exit code 0 done, 1 failed, 2 bad input."""
    from flows import showing
    from storage.edits import CorruptEdit
    from storage.urls import explain
    from storage.zarrs import DamagedStore

    try:
        result = work()
    except (DamagedStore, CorruptEdit) as error:  # nothing that the user wrote: what was stored is damaged
        _stop(str(error), 1)
    except ValueError as error:
        _stop(str(error), 2)
    except KeyboardInterrupt:
        _stop("stopped; run the same command again to go on from here", 1)
    except Exception as error:
        if (sentence := explain(error)) is None:
            raise
        _stop(f"the store could not be used: {sentence}", 1)
    if as_json:
        typer.echo(json.dumps(result if isinstance(result, dict) else result.as_json(), sort_keys=True))
    else:
        (printer or showing.print_outcome)(result)
    if getattr(result, "failed", None):
        raise typer.Exit(1)


def _stop(sentence: str, code: int) -> None:
    typer.echo(f"conceptprune: {sentence}", err=True)
    raise typer.Exit(code) from None
