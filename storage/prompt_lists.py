"""Lists of evaluation prompts, each kept once: prompts/<sha256>.json, canonical JSON of [[text, seed, labels], ...].

A measurement names its list by that sha256; so whoever has the store can say what the images were drawn of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from storage.names import canonical_json, sha256
from storage.places import Place
from storage.roots import Root, RootLike
from storage.zarrs import DamagedStore

Listed = tuple[str, int, tuple[str, ...]]  # text, seed, labels


def write_prompts(root: RootLike, said: Sequence[Any]) -> str:
    """Keep a list of (text, seed, labels). Returns its sha256, 64 hex digits."""
    data = canonical_json(said)
    name = sha256(data)
    _place(root, name).put_new(data)
    return name


def read_prompts(root: RootLike, name: str) -> list[Listed] | None:
    """The list of that sha256; None if it is not there. Raises DamagedStore if it is not what its name says."""
    place = _place(root, name)
    data = place.get()
    if data is None:
        return None
    if sha256(data) != name:
        raise DamagedStore(f"{place} is damaged (wrong sha256); delete it and evaluate again")
    return [(str(text), int(seed), tuple(labels)) for text, seed, labels in json.loads(data)]


def _place(root: RootLike, name: str) -> Place:
    return Root(root).path("prompts", name, suffix=".json")
