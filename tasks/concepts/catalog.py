"""Catalogs: TOML files of concepts for people, CSV or Parquet for machines, validated whole before anything runs.

    format = 1
    extends = ["objects"]           # built-in catalogs, whose words, recipes and defaults this one has too
    tables = ["more.csv"]           # CSV or Parquet files beside this one, whose rows are concepts too
    [capture]                       # steps, window, guidance: see CaptureSpec
    [prune]                         # sparsity, t_hat, vote_share, branch: see PruneSpec
    [words.style]                   # lists that templates draw from; label = words
    noto = "noto"
    [recipes.style]                 # how a concept of this kind becomes prompts
    reference = "{object} on a {background} background"
    target = "{object} in the style of {concept} on a {background} background"
    pairs = 20
    seed = 0                        # of the first pair; or seeds = [...], one for each
    source = "..."                  # where this shape and these settings come from
    concept = ["{object} in the style of {concept}"]          # evaluation prompts that must lose the concept
    others = ["{object} in the style of {style}"]             # and prompts that must keep what they name
    sparsity = "0.02"               # and t_hat, vote_share: this kind's own, before those of [prune]
    [[concepts]]
    slug = "twemoji"
    kind = "style"

A concept may bring its own prompts instead: reference = ["..."], target = ["..."], seed = 0, or seeds = [...] with one
for each prompt: the first of the reference has the first target's. It may also bring its own sparsity, t_hat and
vote_share, before its kind's.

A table has the columns slug, kind and any of words, reference, target, seed, seeds, sparsity, t_hat, vote_share. An
empty cell is left out; reference, target and seeds are lists in Parquet and JSON lists in the cells of a CSV. A table
that is a catalog by itself uses the recipes and words of the built-in catalogs.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tasks.concepts.building import Builder
from tasks.concepts.builtin import builtin_names
from tasks.concepts.catalog_file import CatalogFile, prune_fields
from tasks.concepts.concept import Concept
from tasks.concepts.draft import Draft
from tasks.concepts.problems import Place, Problems, closest
from tasks.concepts.tables import SUFFIXES, Table, suffix_of
from tasks.concepts.toml_catalog import builtin, parse_toml, read_toml, tables_of

NO_TABLES: Mapping[str, bytes] = MappingProxyType({})
MANY = 30  # concepts; a message lists no more


class Catalog:
    """A validated catalog: concepts by slug, and the defaults of capture and pruning."""

    def __init__(self, file: CatalogFile, concepts: Sequence[Concept]) -> None:
        self.file = file
        self.name = file.name
        self._concepts = {concept.slug: concept for concept in concepts}
        self._entries = {entry.slug: entry for entry in file.concepts}

    def __iter__(self) -> Iterator[Concept]:
        """The concepts, in the file's order."""
        return iter(self._concepts.values())

    def __len__(self) -> int:
        return len(self._concepts)

    def __getitem__(self, slug: str) -> Concept:
        """The concept of that slug. Raises ValueError that lists those there are, or the nearest of many."""
        if slug not in self._concepts:
            has = ", ".join(self._concepts) if len(self) <= MANY else f"{len(self)} others"
            meant = closest(slug, self._concepts) if len(self) > MANY else None
            raise ValueError(
                f"no concept {slug!r} in catalog {self.name}; it has {has}{f'; did you mean {meant}?' if meant else ''}"
            )
        return self._concepts[slug]

    def spoken(self, slug: str) -> str | None:
        """What the catalog's prompts call a concept; None if it says nothing."""
        entry = self._entries.get(slug)
        if entry is None:
            return None
        return entry.words or self.file.words.get(entry.kind, {}).get(slug)

    def prune_defaults(self, of: Concept | str) -> dict[str, Any]:
        """The [prune] table, with what the recipe of a kind, or of a concept and then itself, sets instead."""
        kind, entry = (of, None) if isinstance(of, str) else (of.kind, self._entries.get(of.slug))
        return {**self.file.prune, **prune_fields(self.file.recipes.get(kind)), **prune_fields(entry)}


def parse_catalog(data: bytes, name: str, tables: Mapping[str, bytes] = NO_TABLES) -> Catalog:
    """The catalog in a file's bytes; the suffix of `name`, a path or URL, tells TOML, CSV and Parquet apart.

    `tables` has the bytes of those that `table_names` gives. Raises CatalogError with everything that is wrong.
    """
    problems, suffix = Problems(name), suffix_of(name)
    if suffix == ".toml":
        return _build(read_toml(data, problems, tables))
    if suffix in SUFFIXES:
        return _build(_bare_table(Table(data, suffix), name, problems))
    problems.add(Place(), f"its suffix is {suffix or 'missing'}; give a file with .toml, {' or '.join(SUFFIXES)}")
    raise problems.error()


def table_names(data: bytes, name: str) -> list[str]:
    """The names, relative to the catalog, of the tables that `parse_catalog` needs beside these bytes.

    None of them leads out of the catalog's folder. Never raises: what is wrong with them, parse_catalog says.
    """
    try:
        return tables_of(parse_toml(data)[1]) if suffix_of(name) == ".toml" else []
    except ValueError:
        return []


def _bare_table(table: Table, name: str, problems: Problems) -> Draft:
    """A table that is a catalog by itself, with the recipes, words and defaults of the built-in catalogs."""
    base = _builtins()
    stem = re.split(r"[/\\]", name.partition("?")[0])[-1].rpartition(".")[0]
    draft = Draft(problems, stem, base.capture, base.prune, base.words, base.recipes)
    draft.add_table(table)
    return draft


@functools.cache
def _builtins() -> Draft:
    """What the built-in catalogs have, in one."""
    merged = Draft(Problems("built-in"))
    for name in builtin_names():
        merged.inherit(builtin(name))
    return merged


def _build(draft: Draft) -> Catalog:
    """The catalog of a draft without problems. Raises CatalogError when it had some, or its concepts have."""
    builder, concepts = Builder(draft.words, draft.recipes), []
    for place, entry in draft.entries:
        subject, lacks = f"concept {entry.slug}", []
        if (entry.reference is None) != (entry.target is None):
            lacks.append("has only one of reference and target; give both lists, or neither")
        if entry.kind not in draft.broken:
            lacks += builder.missing(entry)
        for text in lacks:
            draft.problems.add(place, f"{subject} {text}")
        if lacks or entry.kind in draft.broken:
            continue
        try:
            concepts.append(builder.build(entry))
        except ValueError as error:
            draft.problems.add(place, f"{subject}: {str(error).removeprefix(f'{subject}: ')}")
    draft.problems.stop()
    file = CatalogFile.model_construct(
        format=1,
        name=draft.name,
        capture=dict(draft.capture),
        prune=dict(draft.prune),
        words={name: dict(labels) for name, labels in draft.words.items()},
        recipes=draft.recipes,
        concepts=[entry for _, entry in draft.entries],
    )
    return Catalog(file, concepts)
