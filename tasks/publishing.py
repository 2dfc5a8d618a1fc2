"""Tasks that publish edits in forms that others use: a mask, changed tensors, a whole pipeline folder."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.edits import DELTA, MASK, read_edit_at
from storage.names import canonical_json
from storage.patching import copy_zeroed, tensors_of
from storage.places import Place
from storage.roots import place_at
from tasks.diffusion.sources import WEIGHT_SUFFIX, fingerprint, resolve
from tasks.diffusion.spec import ModelSpec

Form = Literal["mask", "delta", "diffusers"]
CARD = "conceptprune.json"
WARNING = (
    "A mask reveals what was pruned, and with it where the concept was. Pruning hides a concept; later work recovers "
    "pruned concepts, so this is no proof of removal."
)


@task(name="publish-edit", cache_policy=NO_CACHE)
def publish_edit(url: str, form: Form, to: str, model: ModelSpec) -> list[str]:
    """Write an edit in a form to a directory or an object store's prefix; its card last. Returns the files' names.

    A file that is there with the same bytes stays. Raises ValueError if another one is in its place, if the edit is
    damaged, or if the model is not its base.
    """
    edit, folder = read_edit_at(url), place_at(to)
    sites = json.loads(edit.read("report.json"))["sites"]  # with how much of each is pruned
    card = {**edit.manifest, "sites": sites, "form": form, "warning": WARNING, "base_licence": None}
    names = []
    if form == "diffusers":
        base = resolve(model)
        _check_base(base, edit.manifest["model"])
        card["base_licence"] = licence(base)
        names = _put_pipeline(base, edit.masks(), folder)
    else:
        name = MASK if form == "mask" else DELTA
        _put(folder / name, edit.read(name))
        names = [name]
    _put(folder / CARD, canonical_json(card))
    return [*names, CARD]


def licence(base: Path) -> str | None:
    """What a model's folder says of its licence: of its card's front matter, or its licence file's name."""
    card = base / "README.md"
    if card.is_file() and (found := re.search(r"^license:\s*(\S+)", card.read_text("utf-8", "replace"), re.MULTILINE)):
        return found[1]
    files = sorted(path.name for path in base.iterdir() if path.name.lower().startswith(("licen", "copying")))
    return f"see {files[0]}" if files else None


def _check_base(base: Path, model: Mapping[str, Any]) -> None:
    if (got := fingerprint(base)) != model["fingerprint"]:
        raise ValueError(
            f"{base} ({got[:12]}) is not the model that the edit was made for, {model['id']} "
            f"({model['fingerprint'][:12]}); give that one with --model"
        )


def _put_pipeline(base: Path, masks: Mapping[str, NDArray[np.bool_]], folder: Place) -> list[str]:
    """Every file of the pipeline's folder, weights with the masked values at zero. Returns their names."""
    files = [path for path in sorted(base.rglob("*")) if path.is_file()]
    names = {path.relative_to(base).as_posix(): path for path in files}
    shown = {name: path for name, path in names.items() if not any(part.startswith(".") for part in name.split("/"))}
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
