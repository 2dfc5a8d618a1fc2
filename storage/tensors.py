"""safetensors as bytes that never vary, and bfloat16 for numpy, which has no such type: its bits, as uint16.

The format is github.com/huggingface/safetensors, "Format". Its own writer puts metadata in a random order, so that
equal tensors get another sha256 each time: an edit written twice would differ.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from storage.names import canonical_json

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}  # of a model
KINDS = {"uint8": np.uint8, **DTYPES}
NAMES = {"uint8": "U8", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}  # in the file's header
CODES = {NAMES[dtype]: kind for dtype, kind in KINDS.items()}


def write(
    file: BinaryIO,
    layout: Mapping[str, tuple[str, tuple[int, ...]]],
    metadata: Mapping[str, str],
    tensor: Callable[[str], NDArray[Any]],
) -> None:
    """Writes a safetensors file tensor by tensor; equal input gives equal bytes.

    `layout` is {name: (dtype, shape)}, with "uint8", "float32", "float16" or "bfloat16"; tensor(name) gives each, a
    bfloat16 one as uint16 bits. Raises ValueError if one is not what the layout says.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, shape) in sorted(layout.items()):
        start, end = end, end + math.prod(shape) * np.dtype(KINDS[dtype]).itemsize
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    head = canonical_json(header)
    head += b" " * (-len(head) % 8)
    file.write(len(head).to_bytes(8, "little") + head)
    for name, (dtype, shape) in sorted(layout.items()):
        values = tensor(name)
        if values.shape != shape or values.dtype != KINDS[dtype]:
            raise ValueError(f"tensor {name} is {values.dtype} {values.shape}; its layout says {dtype} {shape}")
        file.write(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())


def encode(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of uint8, float32, float16 and (uint16) bfloat16 tensors; equal input gives equal bytes."""
    dtypes = {np.dtype(kind): dtype for dtype, kind in KINDS.items()}
    buffer = io.BytesIO()
    write(
        buffer, {name: (dtypes[t.dtype], t.shape) for name, t in tensors.items()}, metadata, lambda name: tensors[name]
    )
    return buffer.getvalue()


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
