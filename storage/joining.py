"""A safetensors file made of other files' tensors, under other names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import tensors
from storage.patching import bytes_of


@dataclass(frozen=True)
class Joined:
    """A tensor made of others', whose rows follow one another."""

    parts: tuple[tuple[Path, Mapping[str, Any]], ...]  # file, and the tensor's entry in its header
    convolution: bool = False  # [out, in] is written as [out, in, 1, 1]
    transposed: bool = False

    @property
    def dtype(self) -> str:
        """Such as "float16". Raises ValueError for one that is not a model's."""
        known = {tensors.NAMES[dtype]: dtype for dtype in tensors.DTYPES}
        codes = sorted({entry["dtype"] for _, entry in self.parts})
        if len(codes) > 1 or codes[0] not in known:
            raise ValueError(f"{self.parts[0][0]} holds {', '.join(codes)}; expected one of {', '.join(known)}")
        return known[codes[0]]

    @property
    def shape(self) -> tuple[int, ...]:
        """As it is written."""
        rows, rest = sum(entry["shape"][0] for _, entry in self.parts), tuple(self.parts[0][1]["shape"][1:])
        shape = (*rest, rows) if self.transposed else (rows, *rest)
        return (*shape, 1, 1) if self.convolution and len(shape) == 2 else shape

    def values(self) -> NDArray[Any]:
        """The values, bfloat16 as uint16 bits."""
        kind = np.dtype(tensors.KINDS[self.dtype])
        rows = np.concatenate([bytes_of(*part).view(kind.newbyteorder("<"))[..., 0] for part in self.parts])
        return (rows.T if self.transposed else rows).reshape(self.shape).astype(kind, copy=False)


def write_joined(target: Path, joined: Mapping[str, Joined], metadata: Mapping[str, str]) -> None:
    """Writes {name: tensor} as a safetensors file, a tensor in memory at a time. Raises ValueError for other dtypes."""
    layout = {name: (tensor.dtype, tensor.shape) for name, tensor in joined.items()}
    with target.open("wb") as file:
        tensors.write(file, layout, metadata, lambda name: joined[name].values())
