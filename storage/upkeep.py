"""Looking after a root: what is damaged, what killed writers left behind, what is old. Only maintenance needs it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from storage import zarrs
from storage.activations import ActivationStore, captured_sets
from storage.edits import read_edit
from storage.local import LocalPlace
from storage.places import SEAL, Place
from storage.roots import Root, RootLike

KINDS = ("models", "activations", "rankings", "edits", "tables")  # the folders of a root


def damage(root: RootLike, model: str, concept: str, edit: str) -> str | None:
    """What is wrong with a published edit, in a sentence, after reading all of it; of "latest", with the pointer."""
    try:
        found = read_edit(root, model, concept, edit)
        if edit != "latest":  # else the edit is checked by its digest
            found.verify()
    except ValueError as error:
        return str(error)
    return None


def old_rankings(root: RootLike, before: datetime) -> Iterator[Place]:
    """The ranking stores that were begun before a time; also what an interrupted deletion left of one."""
    folder = Root(root).path("rankings")
    for profile in folder.folders():
        for name in (folder / profile).folders():
            place = folder / profile / name
            written = (place / SEAL).modified() or max(
                filter(None, ((place / file).modified() for file in place.files())), default=None
            )
            if written is not None and written < before:
                yield place


def leftovers(root: RootLike, before: datetime) -> list[Path]:
    """Drafts that killed writers left on a local disk, nothing in them changed since a time.

    An object store has none: there, a rule of the bucket ends uploads in parts that were never completed.
    """
    found: list[Path] = []
    for kind in KINDS:
        place = Root(root).path(kind)
        for folder, folders, names in os.walk(place.url) if isinstance(place, LocalPlace) else ():
            drafts = [name for name in (*folders, *names) if _is_draft(name)]
            folders[:] = [name for name in folders if not _is_draft(name)]
            found += [path for path in (Path(folder, name) for name in drafts) if _changed(path) < before]
    return sorted(found)


def remove_leftover(path: Path) -> None:
    """Removes a draft; nothing happens if its writer lives after all and has done so."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def activation_stores(root: RootLike) -> list[ActivationStore]:
    """Every activation store that has been planned."""
    profiles = [unquote(name) for name in Root(root).path("activations").folders()]
    return [ActivationStore(root, profile, digest) for profile in profiles for digest in captured_sets(root, profile)]


def damaged_slots(store: ActivationStore) -> list[int]:
    """The complete slots whose energies cannot be read, or are not all finite. Raises DamagedStore for worse."""
    pending, bad = set(store.pending()), []
    with zarrs.reading(f"{store.url}: its list of sites", "delete the store and capture it again"):
        group = zarrs.open_group(store.path)
        found = [zarrs.array_of(group, site, "energy") for site in zarrs.attributes(group)["sites"]]
        arrays = [array for array in found if array is not None]
    for slot in range(store.size()):
        if slot in pending:
            continue
        try:
            with zarrs.reading("a slot", "capture it again"):
                sound = all(np.isfinite(np.asarray(array[slot])).all() for array in arrays)
        except zarrs.DamagedStore:
            sound = False
        if not sound:
            bad.append(slot)
    return bad


def _is_draft(name: str) -> bool:
    return (name.startswith(".") and name.endswith(".tmp")) or name.endswith(".partial")  # ours, and zarr's


def _changed(path: Path) -> datetime:
    """When a file, or the newest below a folder, was written; now, if it is gone."""
    try:
        times = [below.lstat().st_mtime for below in (path, *path.rglob("*"))]
    except OSError:
        return datetime.now(UTC)
    return datetime.fromtimestamp(max(times), UTC)
