"""Catalogs as TOML documents, read part by part."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tasks.concepts import templates
from tasks.concepts.builtin import builtin_path
from tasks.concepts.catalog_file import CatalogFile, Header, Recipe, WordLists
from tasks.concepts.draft import Draft
from tasks.concepts.problems import SHOWN, Place, Problems, explain, hint, shown
from tasks.concepts.tables import Table, is_table_name, suffix_of
from tasks.concepts.toml_lines import TomlLines
from tasks.diffusion.spec import CaptureSpec, PruneSpec, parse_sparsity

_SPECS: dict[str, tuple[type, dict[str, Any]]] = {
    "capture": (CaptureSpec, {}),
    "prune": (PruneSpec, {"sparsity": 1, "t_hat": 1}),  # stand-ins for what options may give
}


def parse_toml(data: bytes) -> tuple[str, dict[str, Any]]:
    """The text and the document. Raises ValueError."""
    text = data.decode("utf-8-sig").replace("\r\n", "\n")
    try:
        return text, tomllib.loads(text)
    except RecursionError:
        raise ValueError("its brackets are nested too deep") from None


def read_toml(data: bytes, problems: Problems, tables: Mapping[str, bytes]) -> Draft:
    """A TOML catalog with the rows of its tables; what is wrong is noted."""
    draft = Draft(problems)
    try:
        text, document = parse_toml(data)
    except ValueError as error:
        problems.add(Place(), f"this is not TOML: {error}")
        return draft
    if not document:
        problems.add(Place(), "the file is empty; write format = 1, recipes and concepts")
        return draft
    reader = _Reader(draft, document, TomlLines(text))
    reader.header()
    reader.extends()
    reader.specs()
    reader.words()
    reader.recipes()
    reader.concepts()
    reader.tables(tables)
    return draft


@functools.cache
def builtin(name: str) -> Draft:
    """What a built-in catalog holds. Raises ValueError that lists those there are."""
    path = builtin_path(name)
    draft = read_toml(path.read_bytes(), Problems(str(path)), {})
    draft.problems.stop()
    return draft


class _Reader:
    """Takes one part of a document after the other into a draft."""

    def __init__(self, draft: Draft, document: dict[str, Any], lines: TomlLines) -> None:
        self.draft, self.document, self.lines = draft, document, lines

    def place(self, *path: str | int) -> Place:
        number = self.lines.line(path)
        return Place(0, number, f"line {number}" if number else "")

    def note(self, text: str, *path: str | int) -> None:
        self.draft.problems.add(self.place(*path), text)

    def part(self, name: str) -> dict[str, Any]:
        """A table of the document; empty when it is none."""
        found = self.document.get(name, {})
        return found if isinstance(found, dict) else {}

    def header(self) -> None:
        top = {key: value for key, value in self.document.items() if key not in ("words", "recipes", "concepts")}
        try:
            self.draft.name = Header.model_validate(top, strict=True).name
        except ValidationError as error:
            for path, text in explain(error, CatalogFile.model_fields):
                self.note(text, *path)
        self.draft.capture, self.draft.prune = self.part("capture"), self.part("prune")

    def extends(self) -> None:
        """Take the words, recipes and defaults of built-in catalogs, where the document has none itself."""
        names = self.document.get("extends", [])
        for name in names if isinstance(names, list) else []:
            try:
                base = builtin(name) if isinstance(name, str) else None
            except ValueError as error:
                self.note(f"extends: {error}", "extends")
                continue
            if base is not None:
                self.draft.inherit(base)

    def specs(self) -> None:
        """Note what CaptureSpec and PruneSpec would refuse of [capture] and [prune]."""
        for name, (spec, needed) in _SPECS.items():
            values = self.part(name)
            known = [one.name for one in fields(spec)]
            for key in (key for key in values if key not in known):
                self.note(f"[{name}] has {key}, which is unknown; {hint(key, known)}", name, key)
            mine = {key: value for key, value in values.items() if key in known}
            if _refusal(spec, {**needed, **mine}) is None:
                continue
            alone = {key: _refusal(spec, {**needed, key: value}) for key, value in mine.items()}
            for key, text in alone.items():
                if text is not None:
                    self.note(f"[{name}]: {text}", name, key)
            if not any(alone.values()):
                self.note(f"[{name}]: {_refusal(spec, {**needed, **mine})}", name)

    def words(self) -> None:
        try:
            own = WordLists.model_validate({"words": self.document.get("words", {})}, strict=True).words
            self.draft.add_words(own)
        except ValidationError as error:
            for path, text in explain(error):
                self.note(text, *path)
            # What is wrong in a list stands as a label there: the templates that draw from it are not to blame.
            self.draft.add_words({
                name: {label: label for label in (labels if isinstance(labels, dict) else [name])}
                for name, labels in self.part("words").items()
            })  # fmt: skip

    def recipes(self) -> None:
        if not isinstance(self.document.get("recipes", {}), dict):
            self.note("recipes: give tables such as [recipes.style]", "recipes")
        for kind, values in self.part("recipes").items():
            before = len(self.draft.problems)
            try:
                recipe = Recipe.model_validate(values, strict=True)
                self.draft.recipes[kind] = recipe
                self.templates(kind, recipe)
            except ValidationError as error:
                for path, text in explain(error, Recipe.model_fields, ("recipes", kind)):
                    self.note(text, *path)
            if len(self.draft.problems) > before:
                self.draft.broken.add(kind)

    def templates(self, kind: str, recipe: Recipe) -> None:
        """Note each template that cannot be filled, whatever the concept is."""
        rows = [("reference", recipe.reference), ("target", recipe.target)]
        rows += [("concept", template) for template in recipe.concept]
        rows += [("others", template) for template in recipe.others]
        sound = True
        for name, template in rows:
            try:
                templates.check(template, self.draft.words)
                if name == "others" and templates.CONCEPT in templates.placeholders(template):
                    raise ValueError(f"template {template!r} shows the concept, and others must not; name its list")
            except ValueError as error:
                sound = False
                self.note(f"recipes.{kind}.{name}: {error}", "recipes", kind, name)
        try:  # the words of both are drawn together
            templates.check(f"{recipe.reference} {recipe.target}" if sound else "", self.draft.words)
        except ValueError as error:
            self.note(f"recipes.{kind}: {error}", "recipes", kind)

    def concepts(self) -> None:
        found = self.document.get("concepts")
        if found is None and self.document.get("tables"):
            return
        if not isinstance(found, list) or not found:
            self.note("concepts: Field required; write [[concepts]] with a slug and a kind for each", "concepts")
            return
        for index, values in enumerate(found):
            place_of = functools.partial(self._concept_place, index)
            self.draft.add(values, f"concept number {index + 1}", True, place_of)

    def _concept_place(self, index: int, path: Sequence[str | int]) -> Place:
        return self.place("concepts", index, *path)

    def tables(self, given: Mapping[str, bytes]) -> None:
        names = self.document.get("tables", [])
        for number, name in enumerate(names if isinstance(names, list) else [], start=1):
            if not isinstance(name, str):
                continue  # the header's problem
            if not is_table_name(name):
                text = "is not a CSV or Parquet file beside the catalog: no folder above, no absolute path, no URL"
                self.note(f"table {name[:60]!r} {text}", "tables")
            elif name not in given:
                self.note(f"table {name} is not beside the catalog, or cannot be read", "tables")
            else:
                self.draft.add_table(Table(given[name], suffix_of(name), number, name))


def tables_of(document: Mapping[str, Any]) -> list[str]:
    """The tables that a document may have, each once; wrong names are left out."""
    names = document.get("tables", [])
    return list(dict.fromkeys(name for name in names if is_table_name(name))) if isinstance(names, list) else []


@functools.cache
def _adapter(spec: type) -> TypeAdapter[Any]:
    return TypeAdapter(spec)


def _refusal(spec: type, values: Mapping[str, Any]) -> str | None:
    """What a spec would say against these values."""
    try:
        if "sparsity" in values:
            values = {**values, "sparsity": parse_sparsity(values["sparsity"])}
        _adapter(spec).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":  # the spec's own sentence
            return str(first["ctx"]["error"])
        got = shown(first["input"])[:SHOWN] or "not plain"
        return f"{'.'.join(map(str, first['loc']))} is {got}: {first['msg']}"
    except ValueError as error:
        return str(error)
    return None
