"""Energies as dask reads them: a block a prompt, in any thread or process; one that is damaged or gone raises."""

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

from_array: Callable[..., dask.array.Array] = dask.array.from_array  # Dask leaves its type open


def lazy_energy(path: Place, site: str, prompts: Sequence[str], shape: tuple[int, ...]) -> dask.array.Array:
    """A site's energies [prompt, step, branch, neuron] of a complete store. Computing raises DamagedStore."""
    blocks = _Blocks(path, site, tuple(prompts), shape)
    return from_array(blocks, chunks=(1, *shape[1:]), meta=np.empty((0,) * len(shape), np.float32))


@lru_cache(maxsize=1024)
def _opened(path: Place, site: str, process: int) -> zarr.Array[Any]:
    """A site's array: its metadata never changes, and reading it for every chunk would take as long as the chunk."""
    return zarrs.array(zarrs.open_group(path), f"{site}/energy")


@dataclass(frozen=True)
class _Blocks:
    """What dask takes for an array; only paths and names travel to workers."""

    path: Place
    site: str
    prompts: tuple[str, ...]
    shape: tuple[int, ...]
    dtype = np.dtype(np.float32)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[np.float32]:
        slots = np.atleast_1d(np.arange(len(self.prompts))[key[0]])
        which = ", ".join(f"{slot} ({self.prompts[slot]})" for slot in slots)
        remedy = "ActivationStore.reset(slot) makes it pending, then capture again"
        with zarrs.reading(f"{self.path}: site {self.site}, prompt {which},", remedy):
            return np.asarray(_opened(self.path, self.site, os.getpid())[key], np.float32)
