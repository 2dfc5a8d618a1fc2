"""Catalogs as files: those that are built in, and a concept more in one of the user's own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from storage.roots import place_at
from tasks.catalogs import load_catalog
from tasks.concepts.adding import with_concept
from tasks.concepts.builtin import builtin_names, builtin_path
from tasks.concepts.catalog import Catalog


@dataclass(frozen=True)
class KindRow:
    """One kind of concepts of a built-in catalog: its recipe and its settings."""

    catalog: str
    kind: str
    concepts: int
    reference: str  # template
    target: str
    pairs: int
    sparsity: str
    t_hat: int
    vote_share: float
    source: str


def builtin_kinds() -> dict[str, Any]:
    """Every kind that the built-in catalogs have a recipe for, as {"kinds": [...]} of JSON values."""
    rows = [row for name in builtin_names() for row in _kinds(load_catalog(builtin_path(name)))]
    return {"kinds": [asdict(row) for row in rows]}


def add_concept(
    file: str, slug: str, kind: str, words: str | None, reference: Path | None, target: Path | None, seed: int | None
) -> dict[str, Any]:
    """Write a concept into a TOML catalog, a new one if there is none. Returns what was written.

    Raises ValueError in one sentence, and leaves the file as it is.
    """
    if not file.lower().endswith(".toml"):
        raise ValueError(f"{file} is no TOML catalog; give a file that ends with .toml, new or of your own")
    if (reference is None) != (target is None):
        raise ValueError("give both --reference and --target, two files of prompts, or neither")
    if seed is not None and reference is None:
        raise ValueError("seed is for prompts of your own, and a recipe has its seeds; give two lists, or leave it out")
    place = place_at(file)
    try:
        old = place.get()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror or error}; give a file") from None
    lists = [None if path is None else _lines(path) for path in (reference, target)]
    seeds = None
    if lists[0] is not None and lists[1] is not None and seed is not None:
        seeds = [seed] * max(len(lists[0]), len(lists[1]))
    before = None if old is None else old.decode("utf-8-sig")
    text = with_concept(before, place.name, slug, kind, words, lists[0], lists[1], seeds)
    place.put(text.encode())
    concept = load_catalog(file)[slug]
    sizes = {"reference": len(concept.reference), "target": len(concept.target)}
    return {
        "catalog": file,
        "concept": slug,
        "new": old is None,
        **sizes,
        "evaluation": len(concept.evaluation.concept),
    }


def _kinds(catalog: Catalog) -> list[KindRow]:
    rows = []
    for kind, recipe in catalog.file.recipes.items():
        settings = catalog.prune_defaults(kind)
        count = sum(concept.kind == kind for concept in catalog)
        rows.append(
            KindRow(
                catalog.name,
                kind,
                count,
                recipe.reference,
                recipe.target,
                recipe.pairs,
                str(settings["sparsity"]),
                settings["t_hat"],
                settings["vote_share"],
                recipe.source or "",
            )  # fmt: skip
        )
    return rows


def _lines(path: Path) -> list[str]:
    """A prompt a line; blank lines at the end are none, one between others is the empty prompt."""
    try:
        lines = path.read_text("utf-8-sig").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); give a text file with a prompt a line") from None
    return [line.strip() for line in lines]
