"""Places on a local disk: drafts beside their place, flushed, then renamed or linked there."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from zarr.abc.store import Store
from zarr.storage import LocalStore

from storage.names import sha256
from storage.places import SEAL, Place


@dataclass(frozen=True)
class LocalPlace(Place):
    """A path on this machine."""

    def __fspath__(self) -> str:
        return self.url

    def exists(self) -> bool:
        """See Place."""
        return os.path.isfile(self.url)

    def get(self) -> bytes | None:
        """See Place."""
        try:
            return Path(self.url).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sha256(self) -> tuple[str, int] | None:
        """See Place."""
        try:
            with open(self.url, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def modified(self) -> datetime | None:
        """See Place."""
        try:
            return datetime.fromtimestamp(os.stat(self.url).st_mtime, UTC)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put(self, data: bytes) -> None:
        """See Place."""
        os.replace(self._draft(data), self.url)
        _sync(self.parent)

    def put_new(self, data: bytes | Path) -> bool:
        """See Place."""
        draft = self._draft(data)
        try:
            os.link(draft, self.url)
        except FileExistsError:
            return self.sha256() == LocalPlace(draft).sha256()
        finally:
            os.unlink(draft)
        _sync(self.parent)
        return True

    def compare_and_swap(self, data: bytes, expected: str | None) -> bool:
        """See Place."""
        os.makedirs(self.parent, exist_ok=True)
        with open(self.parent / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            current = self.get()
            if current != data:
                if (None if current is None else sha256(current)) != expected:
                    return False
                self.put(data)
        return True

    def folders(self) -> list[str]:
        """See Place."""
        try:
            with os.scandir(self.url) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def files(self) -> dict[str, int]:
        """See Place."""
        found = {}
        for folder, folders, names in os.walk(self.url):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                if not name.startswith("."):
                    path = os.path.join(folder, name)
                    found[os.path.relpath(path, self.url).replace(os.sep, "/")] = os.path.getsize(path)
        return dict(sorted(found.items()))

    def delete(self) -> None:
        """See Place."""
        if os.path.isdir(self.url):
            (self / SEAL).delete()
            shutil.rmtree(self.url, ignore_errors=True)
        else:
            with suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(self.url)

    def store(self, writable: bool = False) -> Store:
        """See Place."""
        return LocalStore(self.url, read_only=not writable)

    def put_new_tree(self, build: Callable[[Store], None], drafts: Place | None = None) -> bool:
        """See Place: a directory that is built beside its place, or in `drafts`, and renamed."""
        if (self / SEAL).exists():
            return False
        os.makedirs(self.parent, exist_ok=True)
        draft = Path((drafts or self.parent).url, self._draft_name())
        try:
            build(LocalStore(draft))
            for file in draft.rglob("*"):
                _sync(file)
            os.rename(draft, self.url)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        _sync(self.parent)
        return True

    def _draft(self, data: bytes | Path) -> str:
        os.makedirs(self.parent, exist_ok=True)
        draft = os.path.join(self.parent, self._draft_name())
        with open(draft, "xb") as file:
            if isinstance(data, Path):
                with data.open("rb") as source:
                    shutil.copyfileobj(source, file, 1 << 20)
            else:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return draft

    def _draft_name(self) -> str:
        """A name that no escaped name can have: it begins with a dot."""
        return f".{self.name[:40]}.{uuid.uuid4().hex}.tmp"


def _sync(path: str | os.PathLike[str]) -> None:
    """Flushes a file's bytes, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
