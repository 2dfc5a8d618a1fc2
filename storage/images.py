"""Drawn images, addressed by all that made them: images/<draw>/<prompt>.png beside about.json, what the digest is of.

A draw is a model, an edit or none, and the way of drawing; a prompt is named by the digest of its text and seed. So no
image is taken for another, and what one evaluation drew serves the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storage.names import canonical_json, digest
from storage.parallel import at_once
from storage.places import Place
from storage.roots import Root


@dataclass(frozen=True)
class ImageStore:
    """The images of one draw."""

    root: str
    draw: str  # digest of `about`

    @classmethod
    def of(cls, root: str, about: Mapping[str, Any]) -> ImageStore:
        """The store of what a document of JSON values says; the document is kept in it."""
        store = cls(root, digest(about))
        store._place("about.json").put_new(canonical_json(about))
        return store

    def missing(self, prompts: Sequence[str]) -> list[str]:
        """The prompts' names that have no image."""
        there = at_once(lambda name: self._place(f"{name}.png").exists(), prompts)
        return [name for name, found in zip(prompts, there, strict=True) if not found]

    def put(self, prompt: str, png: bytes) -> None:
        """Keep an image; one that is there stays, it was made of the same."""
        self._place(f"{prompt}.png").put_new(png)

    def get(self, prompt: str) -> bytes:
        """An image's PNG. Raises FileNotFoundError if it was not drawn."""
        place = self._place(f"{prompt}.png")
        data = place.get()
        if data is None:
            raise FileNotFoundError(f"{place} was not drawn")
        return data

    def url(self, prompt: str) -> str:
        """Where an image is, or would be."""
        return str(self._place(f"{prompt}.png"))

    def _place(self, name: str) -> Place:
        return Root(self.root).path("images", self.draw) / name
