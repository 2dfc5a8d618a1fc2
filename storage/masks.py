"""The two tensor files of an edit, so that anyone can read them without us:

mask.safetensors    a uint8 tensor [out, ceil(in/8)] a site, named <component>.<qualified name>: the mask [out, in]
                    in numpy.packbits order, 1 = prune; metadata format, version, edit, widths (JSON, {site: in})
delta.safetensors   the changed weights, named <component>.<qualified name>.weight, in the base model's dtype;
                    metadata format, version, edit
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from storage import tensors
from storage.names import canonical_json

MASK_FORMAT = {"format": "conceptprune-mask", "version": "1"}
DELTA_FORMAT = {"format": "conceptprune-delta", "version": "1"}


def pack_mask(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A mask [out, in] as bits [out, ceil(in/8)], in numpy.packbits order."""
    return np.packbits(mask, axis=-1)


def unpack_mask(packed: NDArray[np.uint8], width: int) -> NDArray[np.bool_]:
    """The mask [out, width] of packed bits. Raises ValueError if they are of another width."""
    if packed.ndim != 2 or packed.dtype != np.uint8 or packed.shape[1] != -(-width // 8):
        raise ValueError(f"packed mask is {packed.dtype} {packed.shape}; expected uint8 [out, {-(-width // 8)}]")
    return np.unpackbits(packed, axis=-1, count=width).astype(np.bool_)


def unpack_masks(packed: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> dict[str, NDArray[np.bool_]]:
    """{site: mask [out, in]} of a decoded mask.safetensors. Raises ValueError if a width does not fit."""
    try:
        widths = json.loads(metadata["widths"])
        return {site: unpack_mask(bits, int(widths[site])) for site, bits in packed.items()}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"it does not give each site's width: {error}") from error


def encode_masks(masks: Mapping[str, NDArray[np.bool_]], edit: str) -> bytes:
    """mask.safetensors for {site: mask [out, in]}."""
    widths = canonical_json({site: mask.shape[1] for site, mask in masks.items()}).decode()
    packed = {site: pack_mask(mask) for site, mask in masks.items()}
    return tensors.encode(packed, {**MASK_FORMAT, "edit": edit, "widths": widths})


def write_deltas(
    file: BinaryIO,
    shapes: Mapping[str, tuple[int, int]],
    weight: Callable[[str], NDArray[np.float32]],
    dtype: str,
    edit: str,
) -> None:
    """delta.safetensors into an open file, a site at a time, so that one weight is in memory.

    `shapes` is {site: (out, in)} of the changed sites, weight(site) a patched weight [out, in], `dtype` the base's:
    "float32", "float16" or "bfloat16". Raises ValueError if a value is not of that dtype: it cannot be the base's.
    """
    names = {f"{site}.weight": site for site in shapes}
    layout = {name: (dtype, shapes[site]) for name, site in names.items()}
    tensors.write(file, layout, {**DELTA_FORMAT, "edit": edit}, lambda name: tensors.narrow(weight(names[name]), dtype))
