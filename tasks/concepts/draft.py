"""What could be read of a catalog: each part is checked alone, so that one fault does not hide another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from tasks.concepts.catalog_file import Entry, Recipe
from tasks.concepts.concept import SLUG
from tasks.concepts.problems import Place, Problems, explain
from tasks.concepts.tables import Table, Unreadable, read_table

PlaceOf = Callable[[Sequence[str | int]], Place]


@dataclass
class Draft:
    """The sound parts of a catalog, before its concepts are built."""

    problems: Problems
    name: str = "catalog"
    capture: Mapping[str, Any] = field(default_factory=dict)
    prune: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    recipes: dict[str, Recipe] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)  # kinds whose recipe has problems of its own
    entries: list[tuple[Place, Entry]] = field(default_factory=list)
    slugs: dict[str, Place] = field(default_factory=dict)  # of all entries, sound or not

    def inherit(self, base: Draft) -> None:
        """Take another's words, recipes and defaults, where there are none of the name yet."""
        self.capture, self.prune = {**base.capture, **self.capture}, {**base.prune, **self.prune}
        self.recipes = self.recipes | {kind: made for kind, made in base.recipes.items() if kind not in self.recipes}
        own = self.words
        self.words = base.words
        self.add_words(own)

    def add_words(self, lists: Mapping[str, Mapping[str, str]]) -> None:
        """Add words to the lists; a label that is there gets the new ones."""
        self.words = {**self.words, **{name: {**self.words.get(name, {}), **words} for name, words in lists.items()}}

    def add(self, values: Any, subject: str, strict: bool, place_of: PlaceOf) -> None:
        """Take a concept's values as an entry, or note what is wrong with them.

        `subject` names a concept that has no good slug; `place_of` tells where its fields stand, () where it begins.
        """
        whole = place_of(())
        slug = values.get("slug") if isinstance(values, dict) else None
        if isinstance(slug, str) and SLUG.fullmatch(slug):
            subject = f"concept {slug}"
            if slug in self.slugs:
                first = self.slugs[slug].text
                self.problems.add(whole, f"{subject} is defined twice, first at {first}; use each slug once")
            self.slugs.setdefault(slug, whole)
        sound = values
        if isinstance(values, dict):
            sound = {key: value for key, value in values.items() if value is not Unreadable}
        try:
            entry = Entry.model_validate(sound, strict=strict)
        except ValidationError as error:
            for path, text in explain(error, Entry.model_fields):
                self.problems.add(place_of(path), f"{subject}: {text}" if subject else text)
        else:
            if len(sound) == len(values):
                self.entries.append((whole, entry))

    def add_table(self, table: Table) -> None:
        """Take a table's rows as entries."""
        for place, values in read_table(table, self.problems):
            self.add(values, "", False, lambda _, place=place: place)  # type: ignore[misc]
