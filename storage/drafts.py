"""Edits in the making: files are put into the edit's folder one by one, and the manifest seals them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import tensors
from storage.edits import (
    DELTA,
    MANIFEST,
    MASK,
    Edit,
    edit_file,
    edit_folder,
    encode_deltas,
    encode_masks,
    point,
    read_edit,
    unpack_masks,
    write_edit,
)
from storage.urls import canonical_json, get, put_new


@dataclass(frozen=True)
class EditDraft:
    """The address of an edit that is being made; a few strings, so that tasks can pass it on."""

    root: str
    model: str
    concept: str
    edit: str

    @property
    def folder(self) -> Path:
        """Where its files go."""
        return edit_folder(self.root, self.model, self.concept, self.edit)

    def sealed(self) -> Edit | None:
        """The edit, if a run has finished it: every file verified, and `latest` moved to it.

        Raises CorruptEdit if it is damaged.
        """
        if not (self.folder / MANIFEST).exists():
            return None
        edit = read_edit(self.root, self.model, self.concept, self.edit)
        edit.verify()
        point(self.root, self.model, self.concept, self.edit)
        return edit

    def put(self, name: str, data: bytes) -> None:
        """Write one file, or keep the one that is there: the edit's address covers all that decides its content.

        Raises ValueError if another mask or delta is there, which no rounding explains.
        """
        if not put_new(edit_file(self.folder, name), data) and name in (MASK, DELTA):
            raise ValueError(f"{self.folder} holds another {name}, of an older run; delete that folder and run again")

    def put_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write one canonical JSON file."""
        self.put(name, canonical_json(dict(value)))

    def put_masks(self, masks: Mapping[str, NDArray[np.bool_]]) -> None:
        """Write mask.safetensors from {site: mask [out, in]}."""
        self.put(MASK, encode_masks(masks, self.edit))

    def put_deltas(self, weights: Mapping[str, NDArray[np.float32]], dtype: str) -> None:
        """Write delta.safetensors from {site: patched weight [out, in]}, in the base's dtype."""
        self.put(DELTA, encode_deltas(weights, dtype, self.edit))

    def get(self, name: str) -> bytes | None:
        """One file's bytes; None if it has not been put."""
        return get(edit_file(self.folder, name))

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """{site: mask [out, in]}, True = prune. Raises ValueError if there is none yet."""
        data = self.get(MASK)
        if data is None:
            raise ValueError(f"{self.folder} has no {MASK} yet; make the mask first")
        return unpack_masks(*tensors.decode(data), self.folder)

    def sizes(self) -> dict[str, int]:
        """Bytes of what has been put so far, by kind: mask, delta, images."""
        kinds = {"mask": MASK, "delta": DELTA, "images": "images/*"}
        return {kind: sum(path.stat().st_size for path in self.folder.glob(glob)) for kind, glob in kinds.items()}

    def seal(self, manifest: Mapping[str, Any]) -> Edit:
        """Write the manifest over all files that are there."""
        files = [path for path in sorted(self.folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
        named = {path.relative_to(self.folder).as_posix(): path for path in files if path.name != MANIFEST}
        return write_edit(self.root, self.model, self.concept, named, {**manifest, "edit": self.edit})
