"""Which line of a TOML document each key and each header stands on: tomllib does not say."""

from __future__ import annotations

import re
from collections.abc import Sequence

Path = tuple[str | int, ...]  # ("concepts", 3, "slug")

_STRING_OR_COMMENT = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:\\.|[^"\\\n])*"' r"|'[^'\n]*'" r"|#[^\n]*", re.DOTALL
)
_PART = r'(?:[A-Za-z0-9_-]+|"\d+")'
_KEY = rf"{_PART}(?:\s*\.\s*{_PART})*"
_LINE = re.compile(
    rf"\s*(?:\[\[\s*(?P<item>{_KEY})\s*\]\]|\[\s*(?P<table>{_KEY})\s*\]|(?P<key>{_KEY})\s*=(?P<value>.*))\s*"
)


class TomlLines:
    """The lines of a document that tomllib has read without complaint."""

    def __init__(self, text: str) -> None:
        self._lines: dict[Path, int] = {}
        self._strings: list[str] = []
        self._items: dict[Path, int] = {}  # arrays of tables: how many items so far
        section: Path = ()
        depth = 0  # open brackets of a value that goes on
        for number, line in enumerate(self._without_strings(text).split("\n"), start=1):
            found = _LINE.fullmatch(line) if depth == 0 else None
            if found is None:
                depth += _brackets(line) if depth else 0
            elif item := found["item"]:
                section = self._item(self._parts(item))
                self._lines[section] = number
            elif table := found["table"]:
                section = self._inside(self._parts(table))
                self._lines.setdefault(section, number)
            else:
                path = section + self._parts(found["key"])
                for end in range(len(section) + 1, len(path) + 1):  # a dotted key makes the tables on its way
                    self._lines.setdefault(path[:end], number)
                depth = _brackets(found["value"])

    def line(self, path: Sequence[str | int]) -> int:
        """The line of a key or header, or that of the nearest one around it; 0 for the document itself."""
        for end in range(len(path), 0, -1):
            if line := self._lines.get(tuple(path[:end])):
                return line
        return 0

    def _without_strings(self, text: str) -> str:
        """The text with each string as its number in quotes, and no comments; lines stay where they are."""

        def stand_in(found: re.Match[str]) -> str:
            token = found[0]
            if token.startswith("#"):
                return ""
            self._strings.append(token)
            return f'"{len(self._strings) - 1}"' + "\n" * token.count("\n")

        return _STRING_OR_COMMENT.sub(stand_in, text)

    def _parts(self, key: str) -> Path:
        """The parts of a dotted key, quoted ones as they were (escapes are not undone: such a key has no line)."""
        parts = [part.strip() for part in key.split(".")]
        return tuple(self._strings[int(part[1:-1])][1:-1] if part.startswith('"') else part for part in parts)

    def _inside(self, parts: Path) -> Path:
        """The path of a header, through the last item of each array of tables on its way."""
        path: Path = ()
        for part in parts:
            path += (part,)
            if path in self._items:
                path += (self._items[path] - 1,)
        return path

    def _item(self, parts: Path) -> Path:
        array = self._inside(parts[:-1]) + parts[-1:]
        self._items[array] = self._items.get(array, 0) + 1
        return (*array, self._items[array] - 1)


def _brackets(text: str) -> int:
    """How many brackets a text without strings opens and does not close.

    >>> _brackets("[1, [2"), _brackets("[1]")
    (2, 0)
    """
    return sum((text.count(opens) - text.count(closes)) for opens, closes in ("[]", "{}"))
