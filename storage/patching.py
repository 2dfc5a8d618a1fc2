"""Copies of safetensors files with some values at zero and every other byte as it was.

safetensors: 8 bytes (little-endian length), a JSON header {name: {dtype, shape, data_offsets}}, then the tensors' bytes
(github.com/huggingface/safetensors, "Format"). A value whose bytes are all 0 is 0 in every floating-point dtype.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def tensors_of(file: Path) -> dict[str, dict[str, Any]]:
    """The header's entries by tensor name: dtype, shape and data_offsets, from where the tensors begin.

    Raises ValueError if it is no safetensors file.
    """
    try:
        with file.open("rb") as opened:
            header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        return {name: entry for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, MemoryError, AttributeError) as error:
        raise ValueError(f"{file} is no safetensors file: {error}") from error


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
    with source.open("rb") as opened:
        start = 8 + int.from_bytes(opened.read(8), "little")
    for name, mask in masks.items():
        first, last = entries[name]["data_offsets"]
        shape = (*mask.shape, (last - first) // mask.size)  # of a value's bytes
        values = np.memmap(target, np.uint8, "r+", start + first, shape)
        values[mask] = 0
        values.flush()
