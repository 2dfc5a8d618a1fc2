"""Pointers: a small file that names the one of several things that counts, moved by compare-and-swap.

The file format: canonical JSON with edit, manifest (a sha256), previous (the edit before, or null), sequence (from 1).
"""

from __future__ import annotations

import json
from typing import Any

from storage.names import canonical_json, sha256
from storage.places import Place

ATTEMPTS = 100  # of moving a pointer that others move too


def read_pointer(path: Place) -> dict[str, Any] | None:
    """What a pointer says; None if there is none. Raises ValueError if it is damaged."""
    data = path.get()
    return None if data is None else _parsed(path, data)


def move_pointer(path: Place, edit: str, manifest: str) -> None:
    """Makes a pointer name an edit; of several callers the last one wins, and every move is counted."""
    for _ in range(ATTEMPTS):
        data = path.get()
        before: dict[str, Any] = {"edit": None, "sequence": 0} if data is None else _parsed(path, data)
        if before["edit"] == edit:
            return
        after = {"edit": edit, "manifest": manifest, "previous": before["edit"], "sequence": before["sequence"] + 1}
        if path.compare_and_swap(canonical_json(after), None if data is None else sha256(data)):
            return
    raise ValueError(f"{path} was moved by others {ATTEMPTS} times in a row; try again when they are done")


def _parsed(path: Place, data: bytes) -> dict[str, Any]:
    try:
        pointer = json.loads(data)
        if canonical_json(pointer) == data and set(pointer) == {"edit", "manifest", "previous", "sequence"}:
            return dict(pointer)
    except (ValueError, TypeError):
        pass
    raise ValueError(f"{path} is damaged; delete it and publish the edit again")
