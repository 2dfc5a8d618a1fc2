"""Tasks that publish edits in forms that others use: mask, changed tensors, pipeline folder, single file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.edits import DELTA, MASK, Edit, read_edit_at
from storage.names import canonical_json
from storage.patching import copy_zeroed, tensors_of
from storage.places import Place
from storage.roots import place_at
from tasks.diffusion.sources import ORIGIN, WEIGHT_SUFFIX, fingerprint, licence, model_files, resolve
from tasks.diffusion.spec import ModelSpec
from tasks.single_files import prune_original, write_original

Form = Literal["mask", "delta", "diffusers", "single-file"]
CARD = "conceptprune.json"
WARNING = (
    "A mask reveals what was pruned, and with it where the concept was. Pruning hides a concept; later work recovers "
    "pruned concepts, so this is no proof of removal."
)


@task(name="publish-edit", cache_policy=NO_CACHE)
def publish_edit(url: str, form: Form, to: str, model: ModelSpec, original: str | None = None) -> list[str]:
    """Write an edit in a form to a directory or an object store's prefix; its card last. Returns the files' names.

    `original` is the checkpoint that the model was imported from, for the form "single-file". A file that is there with
    the same bytes stays. Raises ValueError if another one is in its place, if the edit is damaged, or if the model is
    not its base.
    """
    edit, folder = read_edit_at(url), place_at(to)
    base = edit.manifest["model"]
    sites = json.loads(edit.read("report.json"))["sites"]  # with how much of each is pruned
    card = {**edit.manifest, "sites": sites, "form": form, "warning": WARNING, "base_licence": base.get("licence")}
    if form in ("mask", "delta"):
        name = MASK if form == "mask" else DELTA
        _put(folder / name, edit.read(name))
        names = [name]
    else:
        source = resolve(replace(model, variant=base.get("variant")))
        _check_base(source, base)
        card["base_licence"] = licence(source)
        whole = form == "diffusers"
        names = _put_pipeline(source, edit, folder) if whole else _put_single_file(source, edit, folder, original)
    _put(folder / CARD, canonical_json(card))
    return [*names, CARD]


def _check_base(base: Path, model: Mapping[str, Any]) -> None:
    if (got := fingerprint(base, model.get("variant"))) != model["fingerprint"]:
        raise ValueError(
            f"{base} ({got[:12]}) is not the model that the edit was made for, {model['id']} "
            f"({model['fingerprint'][:12]}); give that one with --model"
        )


def _put_pipeline(base: Path, edit: Edit, folder: Place) -> list[str]:
    """Every file of the pipeline's folder, weights with the masked values at zero. Returns their names."""
    masks = edit.masks()
    names = {
        path.relative_to(base).as_posix(): path for path in model_files(base, edit.manifest["model"].get("variant"))
    }
    shown = {name: path for name, path in names.items() if not any(part.startswith(".") for part in name.split("/"))}
    shown.pop(ORIGIN, None)  # it is not what that file holds any more
    own = {name: _masks_in(path, name.partition("/")[0], masks) for name, path in shown.items()}
    if left := sorted(set(masks).difference(*(found.values() for found in own.values()))):
        raise ValueError(f"{base} has no weight of {left[0]}, which the edit prunes; is it whole?")
    for name, path in shown.items():
        if not own[name]:
            _put(folder / name, path)
            continue
        with tempfile.TemporaryDirectory() as scratch:
            copy_zeroed(path, target := Path(scratch) / path.name, {t: masks[site] for t, site in own[name].items()})
            _put(folder / name, target)
    return list(shown)


def _put_single_file(base: Path, edit: Edit, folder: Place, original: str | None) -> list[str]:
    """One file: the original with the masked values at zero, or without one the folder's weights by original names."""
    stem = Path(original).stem if original else base.name
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / f"{stem}-without-{edit.concept}{WEIGHT_SUFFIX}"
        if original:
            prune_original(base, Path(original), edit.masks(), edit.manifest["model"].get("variant"), target)
        else:
            about = {"format": "pt", "conceptprune.edit": edit.id, "conceptprune.warning": WARNING}
            write_original(base, edit.masks(), edit.manifest["model"].get("variant"), target, about)
        _put(folder / target.name, target)
    return [target.name]


def _masks_in(path: Path, component: str, masks: Mapping[str, NDArray[np.bool_]]) -> dict[str, str]:
    """The sites whose weights one file of a component holds, by tensor name."""
    if path.suffix != WEIGHT_SUFFIX:
        return {}
    there = tensors_of(path)
    sites = ((f"{site.partition('.')[2]}.weight", site) for site in masks if site.partition(".")[0] == component)
    return {tensor: site for tensor, site in sites if tensor in there}


def _put(place: Place, data: bytes | Path) -> None:
    if not place.put_new(data):
        raise ValueError(f"{place} is there already and differs; give an empty place with --to")
