"""The root that everything lies under, and writes that are whole or absent.

The only file that knows what kind of place a root is: today a local directory.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

RootLike = str | os.PathLike[str]  # a Root is one too

LONGEST_SEGMENT = 200  # bytes; file systems allow 255, and suffixes and drafts need some


@dataclass(frozen=True, init=False)
class Root:
    """A place for everything, in canonical form: two spellings of one directory are equal.

    Raises ValueError if the URL is empty or not a local directory's.
    """

    url: str  # absolute path

    def __init__(self, url: RootLike) -> None:
        object.__setattr__(self, "url", _local_directory(os.fspath(url)))
        if os.path.isfile(self.url):
            raise ValueError(f"the store's root {self.url} is a file; give a directory")

    def __fspath__(self) -> str:
        return self.url

    def path(self, *names: str, suffix: str = "") -> Path:
        """The path below the root that these names lead to; each name is escaped to one segment, the suffix is not."""
        segments = [escape(name) for name in names]
        return Path(self.url, *segments[:-1], segments[-1] + suffix)


def _local_directory(url: str) -> str:
    """The absolute path that a root URL means: the one place that decides which kinds of root there are."""
    scheme, separator, _ = url.partition("://")
    if not url.strip():
        raise ValueError("the store's root is empty; give a directory, such as ./store")
    if not separator:
        return os.path.abspath(os.path.expanduser(url))
    parts = urlsplit(url)
    if scheme != "file" or parts.netloc not in ("", "localhost"):
        raise ValueError(f"the store's root is at {scheme}://, but only local directories work so far; give a path")
    return os.path.abspath(unquote(parts.path))


def escape(name: str) -> str:
    """A name as one safe path segment: percent-encoded UTF-8, never empty, never with a leading dot.

    >>> escape("van-gogh"), escape("a/b é"), escape("..")
    ('van-gogh', 'a%2Fb%20%C3%A9', '%2E.')

    Raises ValueError if the name is empty, too long or not Unicode text.
    """
    try:
        segment = quote(name, safe="")
    except UnicodeEncodeError:
        raise ValueError(f"the name {name!r} is not Unicode text; rename it") from None
    if segment.startswith("."):
        segment = "%2E" + segment[1:]
    if not 0 < len(segment) <= LONGEST_SEGMENT:
        raise ValueError(
            f"the name {name[:40]!r} takes {len(segment)} bytes as a path, but 1 to {LONGEST_SEGMENT} fit; rename it"
        )
    return segment


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys, no spaces, ASCII only: equal values give equal bytes. NaN raises ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(value: object, length: int = 16) -> str:
    """The first hex digits of the sha256 of a value's canonical JSON.

    >>> digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    True
    """
    return sha256(canonical_json(value))[:length]


def sha256(data: bytes) -> str:
    """The sha256 of some bytes, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def get(path: Path) -> bytes | None:
    """A file's bytes; None if there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def put(path: Path, data: bytes) -> None:
    """Writes a file, replacing what was there; readers see the old bytes or the new ones."""
    os.replace(_draft(path, data), path)
    _sync(path.parent)


def put_new(path: Path, data: bytes) -> bool:
    """Writes a file unless there is one. True if it holds these bytes now; False if it holds others, which it keeps."""
    draft = _draft(path, data)
    try:
        os.link(draft, path)
    except FileExistsError:
        return path.read_bytes() == data
    finally:
        draft.unlink()
    _sync(path.parent)
    return True


def compare_and_swap(path: Path, data: bytes, expected: str | None) -> bool:
    """Writes a file if its sha256 is still `expected` (None: if there is none).

    True if the file holds these bytes now, also when another writer put them there; False if it changed to others.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        current = get(path)
        if current != data:
            if (None if current is None else sha256(current)) != expected:
                return False
            put(path, data)
    return True


def put_new_tree(path: Path, build: Callable[[Path], None], drafts: Path | None = None) -> bool:
    """Builds a directory beside its place, or in `drafts`, and renames it there: it is never seen half built.

    True if ours is there now; False if one was there before: that one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = (drafts or path.parent) / _draft_name(path)
    try:
        build(draft)
        for file in draft.rglob("*"):
            _sync(file)
        os.rename(draft, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    _sync(path.parent)
    return True


def _draft(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(_draft_name(path))
    with open(draft, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return draft


def _draft_name(path: Path) -> str:
    """A name that no escaped name can have: it begins with a dot."""
    return f".{path.name[:40]}.{uuid.uuid4().hex}.tmp"


def _sync(path: Path) -> None:
    """Flushes a file's bytes, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
