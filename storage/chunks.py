"""zarr's store for a folder of an object store, and how a tree is written there so that it is whole or not there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import WrapperStore

from storage.places import SEAL
from storage.urls import ATTEMPTS, SettingsError, broke_off, bucket_store, split

_users: list[int] = []  # the process that used a client first: in a fork of it, every request would wait for ever


class ChunkStore(Store):
    """The files below a folder's URL. One client serves a bucket, and only the URL travels to other processes."""

    def __init__(self, url: str, read_only: bool) -> None:
        super().__init__(read_only=read_only)
        self.url = url
        self._start = f"{split(url)[1]}/".lstrip("/")
        self._client: Store | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}  # it holds credentials

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChunkStore) and (self.url, self.read_only) == (other.url, other.read_only)

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"ChunkStore({self.url!r}, read_only={self.read_only})"

    def with_read_only(self, read_only: bool = False) -> ChunkStore:
        """See zarr's Store, here and below."""
        return ChunkStore(self.url, read_only)

    @property
    def supports_writes(self) -> bool:
        """Yes."""
        return True

    @property
    def supports_deletes(self) -> bool:
        """Yes."""
        return True

    @property
    def supports_listing(self) -> bool:
        """Yes."""
        return True

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The bytes of a key; None if there is none."""
        return await self._bucket.get(self._start + key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """The bytes of several keys."""
        below = [(self._start + key, byte_range) for key, byte_range in key_ranges]
        return await self._bucket.get_partial_values(prototype, below)

    async def exists(self, key: str) -> bool:
        """Whether there is a key."""
        return await self._bucket.exists(self._start + key)

    async def set(self, key: str, value: Buffer) -> None:
        """Writes a key, replacing what was there."""
        self._check_writable()
        await self._bucket.set(self._start + key, value)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Writes a key unless it is there; sent again if the reply is lost, which its client does not dare."""
        self._check_writable()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._bucket.set_if_not_exists(self._start + key, value)
            except Exception as error:
                if attempt == ATTEMPTS or not broke_off(error):
                    raise
                await asyncio.sleep(attempt / 10)

    async def delete(self, key: str) -> None:
        """Removes a key, if it is there."""
        self._check_writable()
        await self._bucket.delete(self._start + key)

    def list(self) -> AsyncIterator[str]:
        """All keys."""
        return self.list_prefix("")

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """All keys below a folder."""
        async for key in self._bucket.list_prefix(self._start + prefix):
            yield key.removeprefix(self._start)

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """The names in a folder."""
        return self._bucket.list_dir((self._start + prefix).rstrip("/"))

    @property
    def _bucket(self) -> Store:
        if os.getpid() not in (_users or [os.getpid()]):
            raise SettingsError(
                f"{self.url} was asked for in a fork of a process that had used the object store before; start worker "
                "processes with the spawn or forkserver method"
            )
        if self._client is None:
            self._client = bucket_store(self.url)
            _users.append(os.getpid())
        return self._client


class TakenError(Exception):
    """Other bytes are where a tree was to be written."""


class Unsealed(WrapperStore[Any]):
    """A store whose root metadata is kept back, and that never replaces an object.

    So planners that race write the same tree: the slower one cannot undo what a worker has done since. A tree that was
    cut off is finished, if it is the same; else `set` raises TakenError.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._seal: Buffer | None = None
        self._written: set[str] = set()
        self._untouched: bool | None = None  # whether nothing was there before

    def seal(self) -> bytes:
        """The root's metadata."""
        assert self._seal is not None, "a tree needs a root"
        return self._seal.to_bytes()

    async def set(self, key: str, value: Buffer) -> None:
        """Writes a key, or finds the same bytes there."""
        if key == SEAL:
            self._seal = value
            return
        if self._untouched is None:
            self._untouched = await self._store.is_empty("")
        there = None if self._untouched else await self._store.get(key, default_buffer_prototype())
        if there is None:
            await self._store.set_if_not_exists(key, value)
        elif there.to_bytes() != value.to_bytes():
            raise TakenError(key)
        self._written.add(key)

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Writes a key unless this tree has it already."""
        if key not in self._written and not (key == SEAL and self._seal):
            await self.set(key, value)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """What this tree has written; nothing of what others have, which zarr would refuse to write over."""
        if key == SEAL:
            return self._seal
        found: Buffer | None = await self._store.get(key, prototype, byte_range) if key in self._written else None
        return found
