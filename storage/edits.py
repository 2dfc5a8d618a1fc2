"""Edits, the product: edits/<model>/<concept>/<edit>/, and a pointer, edits/<model>/<concept>/refs/latest.json.

The file formats, so that anyone can read them without us:

    mask.safetensors    see storage.masks
    delta.safetensors   see storage.masks
    manifest.json       canonical JSON: format, edit, concept, model, profile, prune, prompt_sets, versions, created,
                        files {name: {sha256, size}}; written last: without it there is no edit
    latest.json         see storage.pointers

A folder is filled once: a file that is there stays, so writers that race publish the same edit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import tensors
from storage.masks import unpack_masks
from storage.names import canonical_json, escape, sha256
from storage.parallel import at_once
from storage.places import Place
from storage.pointers import move_pointer, read_pointer
from storage.roots import Root, RootLike, place_at

FORMAT = "conceptprune-edit"
MANIFEST, MASK, DELTA = "manifest.json", "mask.safetensors", "delta.safetensors"
EDIT_ID = re.compile(r"[0-9a-f]{8,64}")  # a digest; never "refs"
FIELDS = ("concept", "created", "edit", "files", "format", "model", "profile", "prompt_sets", "prune", "versions")


class CorruptEdit(ValueError):
    """There is no edit, or a file of it is not what its manifest says."""


@dataclass(frozen=True)
class Edit:
    """A published edit; its files are verified when they are read."""

    path: Place
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
        data = edit_file(self.path, name).get()
        self._check(name, None if data is None else (sha256(data), len(data)))
        assert data is not None  # it would not have passed
        return data

    def verify(self) -> None:
        """Reads every file, in pieces. Raises CorruptEdit at the first that is missing or wrong."""
        names = list(self.manifest["files"])
        for name, found in zip(names, at_once(lambda name: edit_file(self.path, name).sha256(), names), strict=True):
            self._check(name, found)

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """{site: mask [out, in]}, True = prune. Raises CorruptEdit."""
        try:
            return unpack_masks(*self._tensors(MASK))
        except CorruptEdit:
            raise
        except ValueError as error:
            raise CorruptEdit(f"{MASK} of {self.path}: {error}") from error

    def deltas(self) -> dict[str, NDArray[np.float32]]:
        """{<site>.weight: patched weight [out, in]}, the base's dtype widened to float32: exact. Raises CorruptEdit."""
        return {name: tensors.widen(tensor) for name, tensor in self._tensors(DELTA)[0].items()}

    def _check(self, name: str, found: tuple[str, int] | None) -> None:
        entry = self.manifest["files"][name]
        if found != (entry["sha256"], entry["size"]):
            what = "is missing" if found is None else "is not what the manifest says (wrong sha256)"
            raise CorruptEdit(f"{name} of {self.path} {what}; delete that folder and make the edit again")

    def _tensors(self, name: str) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
        try:
            return tensors.decode(self.read(name))
        except ValueError as error:
            raise error if isinstance(error, CorruptEdit) else CorruptEdit(f"{name} of {self.path}: {error}") from error


def write_edit(
    root: RootLike, model: str, concept: str, files: Mapping[str, bytes | Path], manifest_fields: Mapping[str, object]
) -> Edit:
    """Publishes an edit: its files, then its manifest. If it is there already, returns that one.

    See `seal_edit`. Raises ValueError also if an unfinished run left another mask or delta there.
    """
    folder = edit_folder(root, model, concept, str(manifest_fields.get("edit", "")))
    places = {name: edit_file(folder, name) for name in files}
    _check_fields(manifest_fields)
    if not (folder / MANIFEST).exists():
        for name, content in files.items():
            if not places[name].put_new(content) and name in (MASK, DELTA):
                raise ValueError(
                    f"{folder} holds another {name}, of an unfinished edit; delete that folder and run again"
                )
    return seal_edit(folder, concept, list(files), manifest_fields)


def seal_edit(folder: Place, concept: str, names: Sequence[str], manifest_fields: Mapping[str, object]) -> Edit:
    """Writes the manifest of an edit whose files are there. If it is there already, returns that one.

    `manifest_fields` are edit (the digest of what determines the mask), model, profile, prune, prompt_sets, versions.
    Raises ValueError if one is missing, or a file is.
    """
    _check_fields(manifest_fields)
    if (folder / MANIFEST).exists():
        return _read(folder)
    # What is there counts: of a report, the first writer's is as good.
    found = at_once(lambda name: edit_file(folder, name).sha256(), names)
    if missing := [name for name, hashed in zip(names, found, strict=True) if hashed is None]:
        raise ValueError(f"{folder} lacks {', '.join(missing)}, which its manifest would name; run again")
    files = {name: {"sha256": hashed[0], "size": hashed[1]}
             for name, hashed in zip(names, found, strict=True) if hashed is not None}  # fmt: skip
    created = {"created": datetime.now(UTC).isoformat(timespec="seconds")}
    manifest = {**created, **manifest_fields, "format": FORMAT, "concept": concept, "files": files}
    (folder / MANIFEST).put_new(canonical_json(manifest))
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


def read_edit_at(folder: RootLike) -> Edit:
    """An edit by its folder, wherever that was copied to. Raises CorruptEdit."""
    return _read(place_at(folder))


def point(root: RootLike, model: str, concept: str, edit: str) -> None:
    """Makes `latest` name an edit that is there; the last of several callers wins. Raises CorruptEdit if it is not."""
    manifest = read_edit(root, model, concept, edit).digest
    move_pointer(_pointer_path(root, model, concept), edit, manifest)


def latest(root: RootLike, model: str, concept: str) -> str | None:
    """The digest of the edit that the pointer names; None if there is no pointer. Raises ValueError if damaged."""
    pointer = read_pointer(_pointer_path(root, model, concept))
    return None if pointer is None else str(pointer["edit"])


def edit_folder(root: RootLike, model: str, concept: str, edit: str) -> Place:
    """Where an edit lies, or would. Raises ValueError if it is not named by a digest."""
    if not EDIT_ID.fullmatch(edit):
        raise ValueError(f"the edit {edit!r} is not a digest; give 8 to 64 hex digits, or latest")
    return Root(root).path("edits", model, concept, edit)


def edit_file(folder: Place, name: str) -> Place:
    """Where a file of an edit lies, or would. Raises ValueError unless its name is plain and relative."""
    segments = name.split("/")
    if name == MANIFEST or not all(segment and escape(segment) == segment for segment in segments):
        raise ValueError(f"{name!r} cannot name a file of an edit; use letters, digits, . - _ and / for folders")
    return folder / name


def _check_fields(fields: Mapping[str, object]) -> None:
    if missing := sorted(set(FIELDS) - {"concept", "created", "files", "format"} - set(fields)):
        raise ValueError(f"the manifest lacks {', '.join(missing)}; a reader needs to know what made the edit")


def _read(folder: Place) -> Edit:
    """The edit in a folder, its manifest validated."""
    data = (folder / MANIFEST).get()
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


def _pointer_path(root: RootLike, model: str, concept: str) -> Place:
    return Root(root).path("edits", model, concept, "refs", "latest.json")
