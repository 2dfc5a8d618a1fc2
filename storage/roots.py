"""The root that everything lies under."""

from __future__ import annotations

import os
from dataclasses import dataclass

from storage import urls
from storage.local import LocalPlace
from storage.names import escape
from storage.objects import ObjectPlace
from storage.places import Place

RootLike = str | os.PathLike[str]  # a Root is one too


@dataclass(frozen=True, init=False)
class Root:
    """A place for everything, in canonical form: two spellings of one directory or prefix are equal.

    Raises ValueError if the URL is empty, or of a kind that is not known.
    """

    url: str  # an absolute path, or scheme://bucket/prefix

    def __init__(self, url: RootLike) -> None:
        object.__setattr__(self, "url", urls.canonical(os.fspath(url)))
        if not urls.is_object(self.url) and os.path.isfile(self.url):
            raise ValueError(f"the store's root {self.url} is a file; give a directory")

    def __fspath__(self) -> str:
        return self.url

    def path(self, *names: str, suffix: str = "") -> Place:
        """The place below the root that these names lead to; each is escaped to one segment, the suffix is not."""
        return place_at("/".join([self.url.rstrip("/"), *(escape(name) for name in names)]) + suffix)

    def check(self) -> None:
        """Raises ValueError in one sentence if it cannot be used: no bucket, no credentials, no right to write."""
        if urls.is_object(self.url):
            urls.check(self.url)
        else:
            _check_directory(self.url)


def place_at(url: RootLike) -> Place:
    """A file or folder by its URL, wherever it is. Raises ValueError for a URL of a kind that is not known."""
    found = urls.canonical(os.fspath(url), "the URL")
    return ObjectPlace(found) if urls.is_object(found) else LocalPlace(found)


def _check_directory(path: str) -> None:
    there = path
    while not os.path.exists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there) or not os.access(there, os.W_OK):
        raise ValueError(f"the store {path} cannot be written: {there} is not a directory that you may write to")
