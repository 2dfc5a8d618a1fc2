"""Edits, the product: edits/<model>/<concept>/<edit>/, and a pointer, edits/<model>/<concept>/refs/latest.json.

The file formats, so that anyone can read them without us:

    mask.safetensors    a uint8 tensor [out, ceil(in/8)] a site, named <component>.<qualified name>: the mask [out, in]
                        in numpy.packbits order, 1 = prune; metadata format, version, edit, widths (JSON, {site: in})
    delta.safetensors   the changed weights, named <component>.<qualified name>.weight, in the base model's dtype;
                        metadata format, version, edit
    manifest.json       canonical JSON: format, edit, concept, model, profile, prune, prompt_sets, versions, created,
                        files {name: {sha256, size}}; written last: without it there is no edit
    latest.json         see storage.pointers

A folder is filled once: a file that is there stays, so writers that race publish the same edit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import tensors
from storage.pointers import move_pointer, read_pointer
from storage.urls import Root, RootLike, canonical_json, escape, get, put_new, sha256

FORMAT = "conceptprune-edit"
MASK_FORMAT = {"format": "conceptprune-mask", "version": "1"}
DELTA_FORMAT = {"format": "conceptprune-delta", "version": "1"}
MANIFEST, MASK, DELTA = "manifest.json", "mask.safetensors", "delta.safetensors"
EDIT_ID = re.compile(r"[0-9a-f]{8,64}")  # a digest; never "refs"
FIELDS = ("concept", "created", "edit", "files", "format", "model", "profile", "prompt_sets", "prune", "versions")


class CorruptEdit(ValueError):
    """There is no edit, or a file of it is not what its manifest says."""


@dataclass(frozen=True)
class Edit:
    """A published edit; its files are verified when they are read."""

    path: Path
    manifest: dict[str, Any]

    @property
    def id(self) -> str:
        """The digest of all that determines the mask."""
        return str(self.manifest["edit"])

    @property
    def digest(self) -> str:
        """The sha256 of the manifest, 64 hex digits: of everything in the edit."""
        return sha256(canonical_json(self.manifest))

    @property
    def concept(self) -> str:
        """The slug of what it erases."""
        return str(self.manifest["concept"])

    def read(self, name: str) -> bytes:
        """One file's bytes. Raises CorruptEdit if they are not those that the manifest promises."""
        entry = self.manifest["files"].get(name)
        if entry is None:
            raise ValueError(f"edit {self.id} has no file {name}; it has {', '.join(sorted(self.manifest['files']))}")
        data = get(edit_file(self.path, name))
        if data is None or len(data) != entry["size"] or sha256(data) != entry["sha256"]:
            what = "is missing" if data is None else "is not what the manifest says (wrong sha256)"
            raise CorruptEdit(f"{name} of {self.path} {what}; delete that folder and make the edit again")
        return data

    def verify(self) -> None:
        """Reads every file. Raises CorruptEdit at the first that is missing or wrong."""
        for name in self.manifest["files"]:
            self.read(name)

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """{site: mask [out, in]}, True = prune. Raises CorruptEdit."""
        return unpack_masks(*self._tensors(MASK), self.path)

    def deltas(self) -> dict[str, NDArray[np.float32]]:
        """{<site>.weight: patched weight [out, in]}, the base's dtype widened to float32: exact. Raises CorruptEdit."""
        return {name: tensors.widen(tensor) for name, tensor in self._tensors(DELTA)[0].items()}

    def _tensors(self, name: str) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
        try:
            return tensors.decode(self.read(name))
        except ValueError as error:
            raise error if isinstance(error, CorruptEdit) else CorruptEdit(f"{name} of {self.path}: {error}") from error


def pack_mask(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A mask [out, in] as bits [out, ceil(in/8)], in numpy.packbits order."""
    return np.packbits(mask, axis=-1)


def unpack_mask(packed: NDArray[np.uint8], width: int) -> NDArray[np.bool_]:
    """The mask [out, width] of packed bits. Raises ValueError if they are of another width."""
    if packed.ndim != 2 or packed.dtype != np.uint8 or packed.shape[1] != -(-width // 8):
        raise ValueError(f"packed mask is {packed.dtype} {packed.shape}; expected uint8 [out, {-(-width // 8)}]")
    return np.unpackbits(packed, axis=-1, count=width).astype(np.bool_)


def unpack_masks(
    packed: Mapping[str, NDArray[Any]], metadata: Mapping[str, str], folder: Path
) -> dict[str, NDArray[np.bool_]]:
    """{site: mask [out, in]} of a decoded mask.safetensors. Raises CorruptEdit, naming the edit's folder."""
    try:
        widths = json.loads(metadata["widths"])
        return {site: unpack_mask(bits, int(widths[site])) for site, bits in packed.items()}
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptEdit(f"{MASK} of {folder} does not give each site's width: {error}") from error


def encode_masks(masks: Mapping[str, NDArray[np.bool_]], edit: str) -> bytes:
    """mask.safetensors for {site: mask [out, in]}."""
    widths = canonical_json({site: mask.shape[1] for site, mask in masks.items()}).decode()
    packed = {site: pack_mask(mask) for site, mask in masks.items()}
    return tensors.encode(packed, {**MASK_FORMAT, "edit": edit, "widths": widths})


def encode_deltas(weights: Mapping[str, NDArray[np.float32]], dtype: str, edit: str) -> bytes:
    """delta.safetensors for {site: patched weight [out, in]}, in the base's dtype: "float32", "float16", "bfloat16".

    Raises ValueError if a value is not of that dtype: it cannot be the base's.
    """
    narrowed = {f"{site}.weight": tensors.narrow(weight, dtype) for site, weight in weights.items()}
    return tensors.encode(narrowed, {**DELTA_FORMAT, "edit": edit})


def write_edit(
    root: RootLike, model: str, concept: str, files: Mapping[str, bytes | Path], manifest_fields: Mapping[str, object]
) -> Edit:
    """Publishes an edit: its files, then its manifest. If it is there already, returns that one.

    `manifest_fields` are edit (the digest of what determines the mask), model, profile, prune, prompt_sets, versions.
    Raises ValueError if one is missing, a file's name is unsafe, or an unfinished run left another mask or delta there.
    """
    fields = {"created": datetime.now(UTC).isoformat(timespec="seconds"), **manifest_fields}
    fields |= {"format": FORMAT, "concept": concept, "files": {}}
    if missing := sorted(set(FIELDS) - set(fields)):
        raise ValueError(f"the manifest lacks {', '.join(missing)}; a reader needs to know what made the edit")
    folder = edit_folder(root, model, concept, str(fields["edit"]))
    paths = {name: edit_file(folder, name) for name in files}
    if (folder / MANIFEST).exists():
        return _read(folder)
    entries = {}
    for name, content in sorted(files.items()):
        data = content if isinstance(content, bytes) else content.read_bytes()
        if not put_new(paths[name], data):
            if name in (MASK, DELTA):
                raise ValueError(
                    f"{folder} holds another {name}, of an unfinished edit; delete that folder and run again"
                )
            data = paths[name].read_bytes()  # such as a report with other timings: the first writer's is as good
        entries[name] = {"sha256": sha256(data), "size": len(data)}
    put_new(folder / MANIFEST, canonical_json({**fields, "files": entries}))
    return _read(folder)


def read_edit(root: RootLike, model: str, concept: str, edit: str = "latest") -> Edit:
    """An edit by its digest, or the one that the pointer names. Raises CorruptEdit, or ValueError if none is named."""
    pointer = None
    if edit == "latest":
        pointer = read_pointer(_pointer_path(root, model, concept))
        if pointer is None:
            raise ValueError(f"there is no edit of {concept} for the model {model} in {Root(root).url}; erase it first")
        edit = str(pointer["edit"])
    found = _read(edit_folder(root, model, concept, edit))
    if (found.id, found.concept) != (edit, concept) or (pointer and pointer["manifest"] != found.digest):
        raise CorruptEdit(f"{found.path} holds another edit than its place says; delete that folder and run again")
    return found


def read_edit_at(folder: str | Path) -> Edit:
    """An edit by its folder, wherever that was copied to. Raises CorruptEdit."""
    return _read(Path(folder))


def point(root: RootLike, model: str, concept: str, edit: str) -> None:
    """Makes `latest` name an edit that is there; the last of several callers wins. Raises CorruptEdit if it is not."""
    manifest = read_edit(root, model, concept, edit).digest
    move_pointer(_pointer_path(root, model, concept), edit, manifest)


def latest(root: RootLike, model: str, concept: str) -> str | None:
    """The digest of the edit that the pointer names; None if there is no pointer. Raises ValueError if damaged."""
    pointer = read_pointer(_pointer_path(root, model, concept))
    return None if pointer is None else str(pointer["edit"])


def list_edits(root: RootLike, model: str | None = None, concept: str | None = None) -> list[Edit]:
    """The published edits, of all models and concepts unless told, oldest first. Raises CorruptEdit."""
    patterns = ["*" if name is None else escape(name) for name in (model, concept)]
    found = Root(root).path("edits").glob("/".join([*patterns, "*", MANIFEST]))
    edits = [_read(path.parent) for path in found if EDIT_ID.fullmatch(path.parent.name)]
    return sorted(edits, key=lambda edit: (str(edit.manifest["created"]), str(edit.path)))


def edit_folder(root: RootLike, model: str, concept: str, edit: str) -> Path:
    """Where an edit lies, or would. Raises ValueError if it is not named by a digest."""
    if not EDIT_ID.fullmatch(edit):
        raise ValueError(f"the edit {edit!r} is not a digest; give 8 to 64 hex digits, or latest")
    return Root(root).path("edits", model, concept, edit)


def edit_file(folder: Path, name: str) -> Path:
    """Where a file of an edit lies, or would. Raises ValueError unless its name is plain and relative."""
    segments = name.split("/")
    if name == MANIFEST or not all(segment and escape(segment) == segment for segment in segments):
        raise ValueError(f"{name!r} cannot name a file of an edit; use letters, digits, . - _ and / for folders")
    return folder.joinpath(*segments)


def _read(folder: Path) -> Edit:
    """The edit in a folder, its manifest validated."""
    data = get(folder / MANIFEST)
    if data is None:
        raise CorruptEdit(f"{folder} has no {MANIFEST}, so it is not an edit; run the erasure again to finish it")
    try:
        manifest = json.loads(data)
        sound = canonical_json(manifest) == data and set(manifest) >= set(FIELDS) and manifest["format"] == FORMAT
        sound = sound and EDIT_ID.fullmatch(manifest["edit"]) is not None
        for name, entry in manifest["files"].items():
            edit_file(folder, name)
            sound = sound and set(entry) == {"sha256", "size"}
    except (ValueError, TypeError, KeyError, AttributeError):
        sound = False
    if not sound:
        raise CorruptEdit(
            f"the {MANIFEST} of {folder} is damaged or of another format; delete that folder and run again"
        )
    return Edit(folder, manifest)


def _pointer_path(root: RootLike, model: str, concept: str) -> Path:
    return Root(root).path("edits", model, concept, "refs", "latest.json")
