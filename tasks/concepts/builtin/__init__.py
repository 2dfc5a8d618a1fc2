"""The built-in catalogs: the paper's kinds of concepts, with this project's own words for scenes, things and people."""

from __future__ import annotations

import difflib
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def builtin_names() -> tuple[str, ...]:
    """The names of the built-in catalogs.

    >>> builtin_names()
    ('artists', 'gender', 'memorisation', 'nudity', 'objects')
    """
    return tuple(sorted(path.stem for path in _HERE.glob("*.toml")))


def builtin_path(name: str) -> Path:
    """The file of a built-in catalog. Raises ValueError that lists those there are."""
    if name not in builtin_names():
        meant = difflib.get_close_matches(name, builtin_names(), n=1)
        ask = f"; did you mean {meant[0]}?" if meant else ""
        raise ValueError(f"no built-in catalog {name!r}; there are {', '.join(builtin_names())}{ask}")
    return _HERE / f"{name}.toml"
