"""safetensors files of others: what they hold, copies with some values at zero and every other byte as it was.

safetensors: 8 bytes (little-endian length), a JSON header {name: {dtype, shape, data_offsets}}, then the tensors' bytes
(github.com/huggingface/safetensors, "Format"). A value whose bytes are all 0 is 0 in every floating-point dtype.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


def tensors_of(file: Path) -> dict[str, dict[str, Any]]:
    """The header's entries by tensor name: dtype, shape and data_offsets, from where the tensors begin.

    Raises ValueError if it is no safetensors file.
    """
    from safetensors import SafetensorError, safe_open  # here: only who patches others' files needs it

    try:
        with safe_open(file, "np"):  # the library checks the header's size, and that every tensor is inside the file
            pass
    except SafetensorError as error:
        raise ValueError(f"{file} is no safetensors file: {error}") from error
    with file.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def copy_zeroed(source: Path, target: Path, masks: Mapping[str, NDArray[np.bool_]]) -> None:
    """Copies a file; of the tensors in `masks`, {name: mask [out, in]}, the values where it is True become zero.

    Works on the file in place of memory, a tensor at a time. Raises ValueError if a tensor is missing or of another
    shape; nothing is written then.
    """
    entries = tensors_of(source)
    for name, mask in masks.items():
        shape = entries.get(name, {}).get("shape")
        if shape != list(mask.shape):
            raise ValueError(f"{source} holds {name} with the shape {shape}; the mask is of {list(mask.shape)}")
    shutil.copyfile(source, target)
    for name, mask in masks.items():
        values = bytes_of(target, entries[name], "r+")
        values[mask] = 0
        values.flush()


def find_rows(file: Path, values: NDArray[np.uint8], dtype: str) -> list[tuple[str, int]]:
    """Where a file holds a matrix: (tensor, its first row there) of each place with the same bytes and dtype.

    `values` is [rows, columns, bytes a value], `dtype` the format's own word, such as "F16". A matrix may be some rows
    of a longer one, as keys and values are where a checkpoint keeps them in one tensor with the queries.
    """
    rows, columns = values.shape[:2]
    found = []
    for name, entry in tensors_of(file).items():
        shape = entry["shape"]
        if entry["dtype"] != dtype or len(shape) != 2 or shape[1] != columns or shape[0] < rows:
            continue
        there = bytes_of(file, entry)
        for first in np.flatnonzero((there[: shape[0] - rows + 1] == values[0]).all((1, 2))):
            if np.array_equal(there[first : first + rows], values):
                found.append((name, int(first)))
    return found


def bytes_of(file: Path, entry: Mapping[str, Any], mode: Literal["r", "r+"] = "r") -> np.memmap[Any, Any]:
    """A tensor, by its header's entry, as its values' bytes: [*shape, bytes a value], read where they are used."""
    with file.open("rb") as opened:
        start = 8 + int.from_bytes(opened.read(8), "little")
    first, last = entry["data_offsets"]
    shape = (*entry["shape"], (last - first) // math.prod(entry["shape"]))
    return np.memmap(file, np.uint8, mode, start + first, shape)
