"""Places: what a path below a root can do, on a disk or in an object store. Every write is whole or absent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from zarr.abc.store import Store

SEAL = "zarr.json"  # of a tree: its root's metadata, which comes last and makes it be there


@dataclass(frozen=True)
class Place(ABC):
    """A file, or a folder of files. Only its URL is kept, so that it travels to other processes."""

    url: str  # an absolute path, or scheme://bucket/key

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> Self:
        return type(self)(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """The last segment."""
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> Self:
        """The folder that it lies in."""
        return type(self)(self.url.rpartition("/")[0])

    @abstractmethod
    def exists(self) -> bool:
        """Whether there is such a file; folders are not asked for, an object store has none."""

    @abstractmethod
    def get(self) -> bytes | None:
        """The file's bytes; None if there is no such file."""

    @abstractmethod
    def sha256(self) -> tuple[str, int] | None:
        """The file's sha256 (64 hex digits) and size in bytes, read in pieces; None if there is no such file."""

    @abstractmethod
    def modified(self) -> datetime | None:
        """When the file was last written; None if there is no such file."""

    @abstractmethod
    def put(self, data: bytes) -> None:
        """Writes the file, replacing what was there; readers see the old bytes or the new ones."""

    @abstractmethod
    def put_new(self, data: bytes | Path) -> bool:
        """Writes the file, from bytes or (in pieces) from a local file, unless there is one.

        True if it holds these bytes now; False if it holds others, which it keeps.
        """

    @abstractmethod
    def compare_and_swap(self, data: bytes, expected: str | None) -> bool:
        """Writes the file if its sha256 is still `expected` (None: if there is none).

        True if the file holds these bytes now, also when another writer put them there; False if it changed to others.
        """

    @abstractmethod
    def folders(self) -> list[str]:
        """The names of the folders in this one, sorted; none if there is no such folder."""

    @abstractmethod
    def files(self) -> dict[str, int]:
        """All files below this folder, by relative path and sorted, with their sizes in bytes; drafts left out."""

    @abstractmethod
    def delete(self) -> None:
        """Removes the file, or all files below the folder, a tree's seal first. Nothing happens if there is none."""

    @abstractmethod
    def store(self, writable: bool = False) -> Store:
        """The folder as zarr's store."""

    @abstractmethod
    def put_new_tree(self, build: Callable[[Store], None], drafts: Place | None = None) -> bool:
        """Fills a zarr store that is not seen before it is whole. True if ours is there now, False if one was before.

        False, and no seal, if something else is in its way; what was left of the same tree is finished or replaced.
        `drafts` is a folder for what is half built, where this place's own folder is no good for it.
        """
