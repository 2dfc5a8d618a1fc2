"""Places in an object store: conditional writes in place of links and locks, read back when a reply may be lost."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from zarr.abc.store import Store

from storage.chunks import ChunkStore, TakenError, Unsealed
from storage.names import sha256
from storage.places import SEAL, Place
from storage.urls import conflict, filesystem, read, split

PIECE = 8 << 20  # bytes read or sent at once, of a large file
SENDERS = 4  # pieces on their way at once
ATTEMPTS = 5  # of a write that others' deletions come between


@dataclass(frozen=True)
class ObjectPlace(Place):
    """A key below a bucket."""

    def exists(self) -> bool:
        """See Place."""
        return self.modified() is not None

    def get(self) -> bytes | None:
        """See Place."""
        return self._get_tagged()[0]

    def sha256(self) -> tuple[str, int] | None:
        """See Place."""
        found, size = hashlib.sha256(), 0
        try:
            with filesystem().open(self.url, "rb", block_size=PIECE, cache_type="readahead") as file:
                while piece := file.read(PIECE):
                    found.update(piece)
                    size += len(piece)
        except FileNotFoundError:
            return None
        return found.hexdigest(), size

    def modified(self) -> datetime | None:
        """See Place."""
        bucket, key = split(self.url)
        try:
            written: datetime = filesystem().call_s3("head_object", Bucket=bucket, Key=key)["LastModified"]
        except FileNotFoundError:
            return None
        return written

    def put(self, data: bytes) -> None:
        """See Place."""
        filesystem().pipe_file(self.url, data)

    def put_new(self, data: bytes | Path) -> bool:
        """See Place; a large file goes up in parts, and its last request is the conditional one."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                if isinstance(data, Path):
                    filesystem().put_file(
                        str(data), self.url, mode="create", chunksize=_part_size(data), max_concurrency=SENDERS
                    )
                else:
                    filesystem().pipe_file(self.url, data, mode="create")
            except OSError as error:
                holds = self._holds(data) if conflict(error) else None  # ours too, where a reply was lost
                if holds is None and (attempt == ATTEMPTS or not conflict(error)):
                    raise
                if holds is not None:
                    return holds
                time.sleep(attempt / 10)
            else:
                return True
        raise AssertionError("the last attempt returns or raises")

    def compare_and_swap(self, data: bytes, expected: str | None) -> bool:
        """See Place."""
        current, tag = self._get_tagged()
        if current == data:
            return True
        if (None if current is None else sha256(current)) != expected:
            return False
        try:
            filesystem().pipe_file(self.url, data, **({"IfMatch": tag} if tag else {"IfNoneMatch": "*"}))
        except OSError as error:
            if not conflict(error) and not (tag and isinstance(error, FileNotFoundError)):
                raise
            return self.get() == data
        return True

    def folders(self) -> list[str]:
        """See Place."""
        try:
            found = filesystem().ls(self.url, detail=True)
        except FileNotFoundError:
            return []
        return sorted(entry["name"].rpartition("/")[2] for entry in found if entry["type"] == "directory")

    def files(self) -> dict[str, int]:
        """See Place."""
        try:
            found = filesystem().find(self.url, detail=True)
        except FileNotFoundError:
            return {}
        start = self.url.partition("://")[2] + "/"
        return {key.removeprefix(start): entry["size"] for key, entry in sorted(found.items()) if key.startswith(start)}

    def delete(self) -> None:
        """See Place. The client's own way would take * and [ in a prefix for a pattern."""
        fs, (bucket, key) = filesystem(), split(self.url)
        fs.call_s3("delete_object", Bucket=bucket, Key=split(f"{self.url}/{SEAL}")[1])
        keys = [split(f"{self.url}/{name}")[1] for name in self.files()] + [key] * bool(key)
        for first in range(0, len(keys), 1000):
            names = [{"Key": name} for name in keys[first : first + 1000]]
            reply = fs.call_s3("delete_objects", Bucket=bucket, Delete={"Objects": names, "Quiet": True})
            if errors := reply.get("Errors"):
                raise PermissionError(f"{len(errors)} files of {self} were not deleted: {errors[0].get('Code')}")

    def store(self, writable: bool = False) -> Store:
        """See Place."""
        return ChunkStore(self.url, read_only=not writable)

    def put_new_tree(self, build: Callable[[Store], None], drafts: Place | None = None) -> bool:
        """See Place: every object but the root's metadata, each unless it is there, and that one last."""
        if (self / SEAL).exists():
            return False
        tree = Unsealed(self.store(writable=True))
        try:
            build(tree)
        except TakenError:  # by a worker since another sealed it, or it is no tree of ours
            return False
        return (self / SEAL).put_new(tree.seal())

    def _get_tagged(self) -> tuple[bytes | None, str | None]:
        try:
            return read(self.url)
        except FileNotFoundError:
            return None, None

    def _holds(self, data: bytes | Path) -> bool | None:
        """Whether the file is these bytes; None if there is no file."""
        found = self.sha256()
        if found is None:
            return None
        if isinstance(data, bytes):
            return found == (sha256(data), len(data))
        with data.open("rb") as file:
            return found == (hashlib.file_digest(file, "sha256").hexdigest(), data.stat().st_size)


def _part_size(file: Path) -> int:
    return max(PIECE, -(-file.stat().st_size // 10_000))  # an upload has 10,000 parts at most
