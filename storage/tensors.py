"""safetensors as bytes that never vary, and bfloat16 for numpy, which has no such type: its bits, as uint16.

The format is github.com/huggingface/safetensors, "Format". Its own writer puts metadata in a random order, so that
equal tensors get another sha256 each time: an edit written twice would differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.urls import canonical_json

CODES = {"U8": np.uint8, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}


def encode(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of uint8, float32, float16 and (uint16) bfloat16 tensors; equal input gives equal bytes."""
    codes = {np.dtype(kind): code for code, kind in CODES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    parts, end = [], 0
    for name, tensor in sorted(tensors.items()):
        parts.append(tensor.astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes())
        start, end = end, end + len(parts[-1])
        header[name] = {"dtype": codes[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    head = canonical_json(header)
    head += b" " * (-len(head) % 8)
    return b"".join([len(head).to_bytes(8, "little"), head, *parts])


def decode(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The tensors, bfloat16 as uint16 bits, and the metadata. Raises ValueError if it is not such a file."""
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
        metadata = header.pop("__metadata__", {})
        tensors = {}
        for name, entry in header.items():
            kind = np.dtype(CODES[entry["dtype"]]).newbyteorder("<")
            start, end = entry["data_offsets"]
            tensors[name] = np.frombuffer(data[8 + size + start : 8 + size + end], kind).reshape(entry["shape"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a safetensors file of {', '.join(CODES)} tensors: {error}") from error
    return tensors, metadata


def widen(tensor: NDArray[Any]) -> NDArray[np.float32]:
    """The values of float32, float16 or bfloat16 (uint16 bits) as float32: exact."""
    if tensor.dtype == np.uint16:
        return (tensor.astype(np.uint32) << 16).view(np.float32)
    return tensor.astype(np.float32, copy=False)


def narrow(values: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """float32 values in a model's dtype ("float32", "float16", "bfloat16"), whose values they must already be.

    Raises ValueError if one would change.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is unknown; use {', '.join(DTYPES)}")
    values = np.asarray(values, np.float32)
    with np.errstate(over="ignore"):  # too large becomes infinite, which is a change
        bits = (values.view(np.uint32) >> 16).astype(np.uint16)
        narrowed = bits if dtype == "bfloat16" else values.astype(DTYPES[dtype])
    if not np.array_equal(widen(narrowed), values):
        raise ValueError(f"the weights are not {dtype} values, so they are not of the model that the edit is for")
    return narrowed
