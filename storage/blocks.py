"""Arrays of a store as dask reads them: a block a chunk, in any thread or process; what is damaged or gone raises."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import dask.array
import numpy as np
import zarr
from numpy.typing import NDArray

from storage import zarrs
from storage.places import Place

_from_array: Callable[..., dask.array.Array] = dask.array.from_array  # Dask leaves its type open


def lazy_array(
    path: Place,
    array: str,
    node: zarr.Array[Any],
    label: str,
    remedy: str,
    prompts: Sequence[str],
    pending: frozenset[int] = frozenset(),
) -> dask.array.Array:
    """An array [prompt, ...] with chunks of one prompt, lazily, a dask block a chunk.

    `array` is its path in the store, `node` the array itself, opened for its shape; `pending` are the slots that read
    as NaN, whatever is there. Computing raises DamagedStore, which calls the array by its `label` and says what to do,
    the `remedy`.
    """
    blocks = _Blocks(path, array, label, remedy, tuple(prompts), pending, node.shape, np.dtype(node.dtype))
    return _from_array(blocks, chunks=node.chunks, meta=np.empty((0,) * node.ndim, node.dtype))


@lru_cache(maxsize=1024)
def _opened(path: Place, array: str, process: int) -> zarr.Array[Any]:
    """An array for reading: its metadata never changes, and reading it for every chunk would take as long."""
    return zarrs.array(zarrs.open_group(path), array)


@dataclass(frozen=True)
class _Blocks:
    """What dask takes for an array; only paths and names travel to workers."""

    path: Place
    array: str  # its path in the store
    label: str
    remedy: str
    prompts: tuple[str, ...]
    pending: frozenset[int]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        slots = np.atleast_1d(np.arange(len(self.prompts))[key[0]]).tolist()
        if not self.pending.isdisjoint(slots):  # a chunk is of one prompt
            return np.array(np.broadcast_to(self.dtype.type(np.nan), self.shape)[key])
        which = ", ".join(f"{slot} ({self.prompts[slot]})" for slot in slots)
        with zarrs.reading(f"{self.path}: {self.label}, prompt {which},", self.remedy):
            return np.asarray(_opened(self.path, self.array, os.getpid())[key])
