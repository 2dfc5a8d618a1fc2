"""What a model's files say without loading them: its sites, its scheduler and its profile. No torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tasks.diffusion.families import FAMILIES, TEXT_PATTERNS, Family, SitePattern
from tasks.diffusion.sources import fingerprint, licence, resolve, weight_files
from tasks.diffusion.spec import CaptureSpec, ModelSpec, NeuronSite

PROFILE_SCHEMA = 1


@dataclass(frozen=True)
class ModelCard:
    """A model as the store knows it."""

    key: str  # "<name>-<fingerprint>-<dtype>", with "-<kinds>" unless those are ffn: the address of the sites' weights
    id: str
    revision: str | None
    fingerprint: str  # sha256 of its files
    dtype: str
    sites: tuple[NeuronSite, ...]
    scheduler: dict[str, Any]  # class and config
    variant: str | None = None  # of its weights' files
    licence: str | None = None  # what its folder says of it
    halves: bool = True  # whether guidance runs an uncond half


def read_card(model: ModelSpec, kinds: Sequence[str]) -> ModelCard:
    """The card of a model, from its files alone.

    Raises ValueError when it is missing, unsafe or of an unknown family.
    """
    folder = resolve(model)
    digest = fingerprint(folder, model.variant)
    name = re.sub(r"[^a-z0-9]+", "-", Path(model.path).name.lower()).strip("-") or "model"
    held = "" if sorted(kinds) == ["ffn"] else f"-{'+'.join(sorted(kinds))}"
    return ModelCard(
        key=f"{name}-{digest[:12]}-{model.dtype}{held}",
        id=model.path if model.revision else folder.name,
        revision=model.revision,
        fingerprint=digest,
        dtype=model.dtype,
        sites=tuple(read_sites(folder, kinds, model.variant)),
        scheduler=json.loads(
            (folder / "scheduler" / "scheduler_config.json").read_text("utf-8"),
            parse_constant=str,  # DPM-Solver's lambda_min_clipped is -Infinity, which JSON proper lacks
        ),
        variant=model.variant,
        licence=licence(folder),
        halves=family_in(folder).halves,
    )


def read_sites(folder: Path, kinds: Sequence[str], variant: str | None = None) -> list[NeuronSite]:
    """Every site of the given kinds, by name. Raises ValueError for an unknown architecture or a kind it has not.

    Of the sites that read the prompt's embedding the first is the source of the others.
    """
    family, text, known = family_in(folder), _text_encoders(folder), kinds_in(folder)
    if missing := sorted(set(kinds) - set(known)):
        raise ValueError(f"family {family.name} has no site kind {', '.join(missing)}; it has {', '.join(known)}")
    rows = [(family.component, row) for row in family.patterns if row.kind in kinds]
    rows += [(component, SitePattern("text", pattern)) for component, pattern in text.items() if "text" in kinds]
    sites = sorted({
        site for component in {component for component, _ in rows}
        for module, shape in _weights(folder / component, variant)
        for owner, row in rows if owner == component and (site := _site(component, module, shape, row))
    })  # fmt: skip
    if empty := sorted(set(kinds) - {site.kind for site in sites}):
        raise ValueError(f"{folder} has no Linear of the kinds {', '.join(empty)}")
    embedded = [site.name for site in sites if site.once and site.kind != "text"]
    return [replace(site, source=embedded[0]) if site.name in embedded[1:] else site for site in sites]


def kinds_in(folder: Path) -> list[str]:
    """The site kinds that a pipeline folder's model has."""
    text = ["text"] if _text_encoders(folder) else []
    return sorted({*text, *(row.kind for row in family_in(folder).patterns)})


def _site(component: str, module: str, shape: Sequence[int], row: SitePattern) -> NeuronSite | None:
    """The site that a Linear is by a row of the table; None if it is none."""
    if len(shape) != 2 or not re.search(row.pattern, module):
        return None
    start = shape[0] if row.after_rows else 0
    once = row.embedding or row.kind == "text"
    return NeuronSite(f"{component}.{module}", row.kind, shape[1] - start, shape[0], start, once)


def _text_encoders(folder: Path) -> dict[str, str]:
    """The pipeline's text encoders of known classes, with the pattern of their sites."""
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    return {component: TEXT_PATTERNS[entry[-1]] for component, entry in sorted(index.items())
            if isinstance(entry, list) and entry[-1] in TEXT_PATTERNS}  # fmt: skip


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
        "to add one, write its rows in tasks/diffusion/families/, as docs/adding-a-model.md shows"
    )


def profile_of(card: ModelCard, capture: CaptureSpec) -> tuple[str, dict[str, Any]]:
    """The digest (16 hex) of all that changes energies, and that document itself."""
    document = {
        "schema": PROFILE_SCHEMA,
        "model": {name: getattr(card, name) for name in ("id", "revision", "fingerprint", "key", "variant", "licence")},
        "dtype": card.dtype,
        "scheduler": card.scheduler,
        "capture": capture.as_json(),
        "sites": [site.as_json() for site in card.sites],
    }
    determining = {key: value for key, value in document.items() if key != "model"}
    determining["model"] = [card.fingerprint, card.revision]
    text = json.dumps(determining, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16], document


def _weights(component: Path, variant: str | None) -> Iterator[tuple[str, list[int]]]:
    for path in weight_files(component, variant):
        try:
            with safe_open(path, "np") as file:
                for name in file.keys():
                    if name.endswith(".weight"):
                        yield name.removesuffix(".weight"), file.get_slice(name).get_shape()
        except SafetensorError as error:
            raise ValueError(f"{path} is no safetensors file: {error}") from error
