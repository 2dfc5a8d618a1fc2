"""Edits as one .safetensors file with the key names that A1111 and ComfyUI read.

Either the file that the model came from, copied with the masked values at zero, or one
written from its pipeline's folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import tensors
from storage.joining import Joined, write_joined
from storage.patching import bytes_of, copy_zeroed, find_rows, tensors_of
from tasks.diffusion.layouts import LAYOUTS, layout_of, original_keys
from tasks.diffusion.sources import check_original, weight_files

EMA = "model_ema."  # a second, averaged copy of the denoiser that some original checkpoints hold
Masks = Mapping[str, NDArray[np.bool_]]  # by site
Tensors = dict[str, tuple[Path, dict[str, Any]]]  # file and header entry, by "<component>.<tensor>"


def prune_original(base: Path, original: Path, masks: Masks, variant: str | None, target: Path) -> None:
    """Copy the checkpoint that a model came from; the masked values become zero, every other byte stays.

    A site's weight is found by its bytes, so that no table of names has to be right; where the file has averaged (EMA)
    weights too, theirs become zero at the same places. Raises ValueError in one sentence if it is not the base's.
    """
    check_original(base, original)
    held, entries = base_tensors(base, variant), tensors_of(original)
    zeroed: dict[str, NDArray[np.bool_]] = {}
    for site, mask in masks.items():
        name, first = _place(original, site, *_weight(base, held, site))
        whole = zeroed.setdefault(name, np.zeros(entries[name]["shape"], bool))
        whole[first : first + len(mask)] |= mask
        twin = EMA + name.partition(".")[2].replace(".", "")
        if twin in entries:
            zeroed[twin] = whole
    copy_zeroed(original, target, zeroed)


def write_original(base: Path, masks: Masks, variant: str | None, target: Path, metadata: Mapping[str, str]) -> None:
    """Write a pipeline's folder as an original checkpoint of Stable Diffusion 1, 2 or XL, masked values at zero.

    Raises ValueError in one sentence for another family, or a pipeline that has tensors beyond that layout.
    """
    index = json.loads((base / "model_index.json").read_text("utf-8"))
    layout = layout_of(index, _config(base, "text_encoder"))
    held = base_tensors(base, variant)
    names = {component: [name.partition(".")[2] for name in held if name.partition(".")[0] == component]
             for component in LAYOUTS[layout]}  # fmt: skip
    keys = original_keys(layout, names, _config(base, "unet")["layers_per_block"])
    joined = {
        key.name: Joined(tuple(held[f"{key.component}.{part}"] for part in key.parts), key.convolution, key.transposed)
        for key in keys
    }
    renamed = {f"{key.component}.{key.parts[0]}": key.name for key in keys}
    plain = target.with_suffix(".unpruned")
    write_joined(plain, joined, metadata)
    copy_zeroed(plain, target, {renamed[f"{site}.weight"]: mask for site, mask in masks.items()})
    plain.unlink()


def base_tensors(base: Path, variant: str | None) -> Tensors:
    """Every tensor in a pipeline folder's components, from the files' headers."""
    files = (path for folder in sorted(base.iterdir()) if folder.is_dir() for path in weight_files(folder, variant))
    return {f"{path.parent.name}.{name}": (path, entry) for path in files for name, entry in tensors_of(path).items()}


def _config(base: Path, component: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((base / component / "config.json").read_text("utf-8"))
    return config


def _weight(base: Path, held: Tensors, site: str) -> tuple[NDArray[np.uint8], str]:
    """A site's weight in the base as bytes, and its dtype in the format's word."""
    if f"{site}.weight" not in held:
        raise ValueError(f"{base} has no weight of {site}, which the edit prunes; is it whole?")
    path, entry = held[f"{site}.weight"]
    return bytes_of(path, entry), entry["dtype"]


def _bits(values: NDArray[np.uint8], dtype: str, code: str) -> NDArray[np.uint8] | None:
    """The bytes of a weight's values in another floating-point dtype; None where a value would change."""
    names = {tensors.NAMES[name]: name for name in tensors.DTYPES}
    if code == dtype or code not in names or dtype not in names:
        return values if code == dtype else None
    kind = np.dtype(tensors.KINDS[names[dtype]]).newbyteorder("<")
    wide = tensors.widen(np.ascontiguousarray(values).view(kind)[..., 0].astype(tensors.KINDS[names[dtype]]))
    try:
        other = tensors.narrow(wide, names[code])
    except ValueError:
        return None
    return np.ascontiguousarray(other[..., None]).view(np.uint8)


def _place(original: Path, site: str, values: NDArray[np.uint8], dtype: str) -> tuple[str, int]:
    found = []
    for (
        code
    ) in tensors.CODES:  # the folder's precision may be another, where a file has several: the values are the same
        if (bits := _bits(values, dtype, code)) is not None:
            found += [place for place in find_rows(original, bits, code) if not place[0].startswith(EMA)]
    if len(found) != 1:
        said = f"at {' and '.join(name for name, _ in found)}" if found else "nowhere"
        raise ValueError(
            f"{original} holds the weights of {site} {said}; expected them once, as {dtype}: "
            "give the file that the model was imported from, in the same precision"
        )
    return found[0]
