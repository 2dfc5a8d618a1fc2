"""What is wrong with a catalog: every problem with its place, raised together."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pydantic import ValidationError

SHOWN = 40  # characters of a wrong value that a message repeats


class CatalogError(ValueError):
    """All that is wrong with a catalog.

    One sentence for one problem, else a line that counts them and a line each. `problems` has them one by one.
    """

    def __init__(self, text: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(text, problems)  # both are args, so that the error can be pickled to another process
        self.problems = problems or (text,)

    def __str__(self) -> str:
        return str(self.args[0])


class Place(NamedTuple):
    """Where a problem is; places sort as people read a catalog: its own file first, then its tables in turn."""

    file: int = 0  # 0: the catalog itself; 1, 2, ...: its tables
    number: int = 0  # line or row, 1 for the first; 0: the file as a whole
    text: str = ""  # "line 12", "row 7", "more.csv row 7"


class Problems:
    """Collects what is wrong with one catalog."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._found: list[tuple[Place, str]] = []

    def add(self, place: Place, text: str) -> None:
        """Note a problem, a sentence without the catalog's name and the place. It is kept to one line."""
        self._found.append((place, "".join(c if c.isprintable() else " " for c in text)))

    def __len__(self) -> int:
        return len(self._found)

    def stop(self) -> None:
        """Raises CatalogError when anything was noted."""
        if self._found:
            raise self.error()

    def error(self) -> CatalogError:
        """All that was noted, in the order of the places."""
        in_order = sorted(self._found, key=lambda found: found[0][:2])  # stable: a place's own problems stay in order
        lines = tuple(f"{place.text}: {text}" if place.text else text for place, text in in_order)
        head = f"catalog {self.name}"
        if len(lines) == 1:
            return CatalogError(f"{head}: {lines[0]}", lines)
        return CatalogError("\n".join([f"{head} has {len(lines)} errors:", *lines]), lines)


def hint(name: str, known: Iterable[str]) -> str:
    """A question that names what was meant, or all that is known.

    >>> hint("wrods", ["slug", "words"]), hint("x", ["slug", "words"])
    ('did you mean words?', 'known are slug, words')
    """
    names = list(known)
    meant = closest(name, names)
    return f"did you mean {meant}?" if meant else f"known are {', '.join(names) or 'none'}"


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant.

    >>> closest("Slug", ["slug", "seed"]), closest("prompt", ["slug", "seed"])
    ('slug', None)
    """
    found = difflib.get_close_matches(name.strip().lower(), list(known), n=1)
    return found[0] if found else None


def explain(
    error: ValidationError, known: Iterable[str] = (), prefix: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[int | str, ...], str]]:
    """Each of pydantic's errors as its path and a sentence that begins with it.

    `known` are the fields there are; `prefix` is the path of the model itself.
    """
    for found in error.errors(include_url=False):
        path = (*prefix, *found["loc"])
        name = ".".join(map(str, path))
        if found["type"] == "value_error":  # a validator's own sentence, which names the field
            text = ": ".join(filter(None, [".".join(prefix), str(found["ctx"]["error"])]))
        elif found["type"] == "extra_forbidden":
            text = f"{name[:SHOWN]} is unknown; {hint(str(path[-1]), known)}"
        elif found["type"] == "missing":
            text = f"{name}: Field required"
        else:
            text = ": ".join(filter(None, [name, found["msg"]])) + _got(found["input"])
        yield path, text


def _got(value: Any) -> str:
    """The wrong value, where it is short: prompts stay out of logs.

    >>> _got(-1), _got("ten"), _got(["a hill"]), _got("")
    (', got -1', ", got 'ten'", '', '')
    """
    text = shown(value)
    return f", got {text}" if value != "" and text and len(text) <= SHOWN else ""


def shown(value: Any) -> str:
    """A plain value as Python writes it, "" for any other: an integer of ten thousand digits cannot even be printed."""
    plain = isinstance(value, bool | float | str) or (isinstance(value, int) and value.bit_length() <= 64)
    return repr(value) if plain else ""
