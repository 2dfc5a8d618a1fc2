"""What a model's files say without loading them: its sites, its scheduler and its profile. No torch.

safetensors begins with 8 bytes (little-endian length) and a JSON header of names, dtypes and shapes
(github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.diffusion.families import FAMILIES, Family
from tasks.diffusion.sources import WEIGHT_SUFFIX, fingerprint, resolve
from tasks.diffusion.spec import CaptureSpec, ModelSpec, NeuronSite

PROFILE_SCHEMA = 1


@dataclass(frozen=True)
class ModelCard:
    """A model as the store knows it."""

    key: str  # "<name>-<fingerprint>-<dtype>": the model's address
    id: str
    revision: str | None
    fingerprint: str  # sha256 of its files
    dtype: str
    sites: tuple[NeuronSite, ...]
    scheduler: dict[str, Any]  # class and config


def read_card(model: ModelSpec, kinds: Sequence[str]) -> ModelCard:
    """The card of a model, from its files alone.

    Raises ValueError when it is missing, unsafe or of an unknown family.
    """
    folder = resolve(model)
    digest = fingerprint(folder)
    name = re.sub(r"[^a-z0-9]+", "-", Path(model.path).name.lower()).strip("-") or "model"
    return ModelCard(
        key=f"{name}-{digest[:12]}-{model.dtype}",
        id=model.path if model.revision else folder.name,
        revision=model.revision,
        fingerprint=digest,
        dtype=model.dtype,
        sites=tuple(read_sites(folder, kinds)),
        scheduler=json.loads((folder / "scheduler" / "scheduler_config.json").read_text("utf-8")),
    )


def read_sites(folder: Path, kinds: Sequence[str]) -> list[NeuronSite]:
    """Every site of the given kinds, by name. Raises ValueError for an unknown architecture or a kind it has not."""
    family = family_in(folder)
    rows = [row for row in family.patterns if row.kind in kinds]
    if missing := sorted(set(kinds) - {row.kind for row in rows}):
        known = ", ".join(sorted({row.kind for row in family.patterns}))
        raise ValueError(f"family {family.name} has no site kind {', '.join(missing)}; it has {known}")
    sites = {
        NeuronSite(f"{family.component}.{module}", row.kind, shape[1], shape[0])
        for module, shape in _weights(folder / family.component)
        for row in rows
        if len(shape) == 2 and re.search(row.pattern, module)
    }
    if not sites:
        raise ValueError(f"{folder / family.component} has no Linear of the kinds {', '.join(kinds)}")
    return sorted(sites)


def family_in(folder: Path) -> Family:
    """The family of a pipeline folder's denoiser. Raises ValueError that lists the known ones."""
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    for family in FAMILIES:
        entry = index.get(family.component)
        if isinstance(entry, list) and entry[-1] in family.classes:
            return family
    known = ", ".join(name for family in FAMILIES for name in family.classes)
    raise ValueError(
        f"{folder} has no denoiser of a known architecture (known: {known}); "
        "to add one, write its rows in tasks/diffusion/families/"
    )


def profile_of(card: ModelCard, capture: CaptureSpec) -> tuple[str, dict[str, Any]]:
    """The digest (16 hex) of all that changes energies, and that document itself."""
    document = {
        "schema": PROFILE_SCHEMA,
        "model": {"id": card.id, "revision": card.revision, "fingerprint": card.fingerprint, "key": card.key},
        "dtype": card.dtype,
        "scheduler": card.scheduler,
        "capture": {**asdict(capture), "guidance": float(capture.guidance), "kinds": sorted(capture.kinds)},
        "sites": [asdict(site) for site in card.sites],
    }
    determining = {key: value for key, value in document.items() if key != "model"}
    determining["model"] = [card.fingerprint, card.revision]
    text = json.dumps(determining, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16], document


def _weights(folder: Path) -> Iterator[tuple[str, list[int]]]:
    for path in sorted(folder.glob(f"*{WEIGHT_SUFFIX}")):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, entry in header.items():
            if name.endswith(".weight"):
                yield name.removesuffix(".weight"), entry["shape"]
