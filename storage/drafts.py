"""Edits in the making: files are put into the edit's folder one by one, and the manifest seals them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from storage import tensors
from storage.edits import (
    DELTA,
    MANIFEST,
    MASK,
    CorruptEdit,
    Edit,
    edit_file,
    edit_folder,
    point,
    read_edit,
    seal_edit,
)
from storage.masks import encode_masks, unpack_masks, write_deltas
from storage.names import canonical_json
from storage.places import Place


@dataclass(frozen=True)
class EditDraft:
    """The address of an edit that is being made; a few strings, so that tasks can pass it on."""

    root: str
    model: str
    concept: str
    edit: str

    @property
    def folder(self) -> Place:
        """Where its files go."""
        return edit_folder(self.root, self.model, self.concept, self.edit)

    def sealed(self, latest: bool = True) -> Edit | None:
        """The edit, if a run has finished it: every file verified, and unless told otherwise its concept's latest.

        Raises CorruptEdit if it is damaged.
        """
        if not (self.folder / MANIFEST).exists():
            return None
        edit = read_edit(self.root, self.model, self.concept, self.edit)
        edit.verify()
        if latest:
            self.point()
        return edit

    def published(self) -> Edit | None:
        """The edit, if a run has finished it and all its files are there in their sizes; they are not read."""
        if not (self.folder / MANIFEST).exists():
            return None
        edit, there = read_edit(self.root, self.model, self.concept, self.edit), self.folder.files()
        entries = edit.manifest["files"]
        return (
            edit
            if all(there.get(name) == entry["size"] for name, entry in entries.items())
            else self.sealed(latest=False)
        )

    def point(self) -> None:
        """Make it its concept's latest edit."""
        point(self.root, self.model, self.concept, self.edit)

    def put(self, name: str, data: bytes | Path) -> None:
        """Write one file, from bytes or a local file, or keep the one that is there: the address decides all of it.

        Raises ValueError if another mask or delta is there, which no rounding explains.
        """
        if not edit_file(self.folder, name).put_new(data) and name in (MASK, DELTA):
            raise ValueError(f"{self.folder} holds another {name}, of an older run; delete that folder and run again")

    def put_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write one canonical JSON file."""
        self.put(name, canonical_json(dict(value)))

    def put_masks(self, masks: Mapping[str, NDArray[np.bool_]]) -> None:
        """Write mask.safetensors from {site: mask [out, in]}."""
        self.put(MASK, encode_masks(masks, self.edit))

    def put_deltas(
        self, shapes: Mapping[str, tuple[int, int]], weight: Callable[[str], NDArray[np.float32]], dtype: str
    ) -> None:
        """Write delta.safetensors in the base's dtype: {site: (out, in)} and each site's patched weight [out, in].

        It goes through a local file and up in pieces: of a large model it is gigabytes.
        """
        with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
            write_deltas(cast(BinaryIO, file), shapes, weight, dtype, self.edit)
            file.flush()
            self.put(DELTA, Path(file.name))

    def get(self, name: str) -> bytes | None:
        """One file's bytes; None if it has not been put."""
        return edit_file(self.folder, name).get()

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """{site: mask [out, in]}, True = prune. Raises ValueError if there is none yet."""
        data = self.get(MASK)
        if data is None:
            raise ValueError(f"{self.folder} has no {MASK} yet; make the mask first")
        try:
            return unpack_masks(*tensors.decode(data))
        except ValueError as error:
            raise CorruptEdit(f"{MASK} of {self.folder}: {error}") from error

    def sizes(self) -> dict[str, int]:
        """Bytes of what has been put so far, by kind: mask, delta, images."""
        there = self.folder.files()
        kinds = {"mask": MASK, "delta": DELTA, "images": "images/"}
        return {kind: sum(size for name, size in there.items() if name.startswith(start))
                for kind, start in kinds.items()}  # fmt: skip

    def seal(self, manifest: Mapping[str, Any]) -> Edit:
        """Write the manifest over all files that are there."""
        names = [name for name in self.folder.files() if name != MANIFEST]
        return seal_edit(self.folder, self.concept, names, {**manifest, "edit": self.edit})
