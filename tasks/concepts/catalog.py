"""Catalogs: TOML files of concepts, validated whole before anything runs.

    format = 1
    [capture]                       # steps, window, guidance: see CaptureSpec
    [prune]                         # sparsity, t_hat, vote_share, branch: see PruneSpec
    [words.style]                   # lists that templates draw from; label = words
    noto = "noto"
    [recipes.style]                 # how a concept of this kind becomes prompts
    reference = "{object} on a {background} background"
    target = "{object} in the style of {concept} on a {background} background"
    pairs = 20
    concept = ["{object} in the style of {concept}"]          # evaluation prompts that must lose the concept
    others = ["{object} in the style of {style}"]             # and prompts that must keep what they name
    [[concepts]]
    slug = "twemoji"
    kind = "style"

A concept may bring its own prompts instead: reference = ["..."], target = ["..."], seed = 0.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.concepts import templates
from tasks.concepts.concept import Concept, EvaluationSet, Expectation
from tasks.concepts.prompts import Prompt, PromptSet

EVALUATION_SEED = 1_000_000  # evaluation prompts are drawn from other noise than captured ones

Text = Annotated[str, Field(min_length=1, max_length=2000)]
Texts = Annotated[list[Text], Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Recipe(_Strict):
    """How a concept of one kind becomes prompts: templates and counts."""

    reference: Text
    target: Text
    pairs: int = Field(ge=1, le=10_000)
    concept: list[Text] = []
    others: list[Text] = []
    concept_prompts: int = Field(default=20, ge=1, le=10_000)
    others_prompts: int = Field(default=48, ge=1, le=10_000)
    seed: int = Field(default=0, ge=0, le=2**31)
    sparsity: str | None = None  # this kind's own defaults, where the catalog's do not suit it
    t_hat: int | None = None
    vote_share: float | None = None


class Entry(_Strict):
    """One concept as the file has it."""

    slug: str
    kind: str
    words: Text | None = None  # default: the kind's word list at this slug
    reference: Texts | None = None
    target: Texts | None = None
    seed: int = Field(default=0, ge=0, le=2**31)


class CatalogFile(_Strict):
    """A catalog's TOML document."""

    format: Literal[1]
    name: str = "catalog"
    capture: dict[str, Any] = {}
    prune: dict[str, Any] = {}
    words: dict[str, dict[str, Text]] = {}
    recipes: dict[str, Recipe] = {}
    concepts: list[Entry] = Field(min_length=1)


class Catalog:
    """A validated catalog: concepts by slug, and the defaults of capture and pruning.

    Raises ValueError in one sentence.
    """

    def __init__(self, file: CatalogFile) -> None:
        self.file = file
        self.name = file.name
        entries = {entry.slug: entry for entry in file.concepts}
        if len(entries) < len(file.concepts):
            slugs = [entry.slug for entry in file.concepts]
            raise ValueError(
                f"concept {next(s for s in slugs if slugs.count(s) > 1)} is defined twice; use each slug once"
            )
        self._concepts = {slug: self._build(entry) for slug, entry in entries.items()}

    def __iter__(self) -> Iterator[Concept]:
        """The concepts, in the file's order."""
        return iter(self._concepts.values())

    def __len__(self) -> int:
        return len(self._concepts)

    def __getitem__(self, slug: str) -> Concept:
        """The concept of that slug. Raises ValueError that lists those there are."""
        if slug not in self._concepts:
            raise ValueError(f"no concept {slug!r} in catalog {self.name}; it has {', '.join(self._concepts)}")
        return self._concepts[slug]

    def prune_defaults(self, kind: str) -> dict[str, Any]:
        """The [prune] table, with what the kind's recipe sets instead."""
        recipe = self.file.recipes.get(kind)
        own = (
            {} if recipe is None else recipe.model_dump(include={"sparsity", "t_hat", "vote_share"}, exclude_none=True)
        )
        return {**self.file.prune, **own}

    def _build(self, entry: Entry) -> Concept:
        if (entry.reference is None) != (entry.target is None):
            raise ValueError(f"concept {entry.slug} has only one of reference and target; give both lists, or neither")
        recipe = self.file.recipes.get(entry.kind)
        if entry.reference is not None and entry.target is not None:
            reference, target = (
                PromptSet(tuple(Prompt(text, entry.seed + i) for i, text in enumerate(texts)))
                for texts in (entry.reference, entry.target)
            )
            return Concept(entry.slug, entry.kind, reference, target, self._evaluation(entry, recipe))
        if recipe is None:
            known = ", ".join(self.file.recipes) or "none"
            raise ValueError(
                f"concept {entry.slug} has kind {entry.kind!r}, which has no recipe (there are: {known}), "
                "and no reference and target prompts of its own"
            )
        reference, target = self._sets(entry, recipe)
        return Concept(entry.slug, entry.kind, reference, target, self._evaluation(entry, recipe))

    def _spoken(self, entry: Entry) -> str:
        words = entry.words or self.file.words.get(entry.kind, {}).get(entry.slug)
        if words is None:
            raise ValueError(
                f'concept {entry.slug} has no words; give words = "..." or put it into [words.{entry.kind}]'
            )
        return words

    def _others(self, entry: Entry) -> dict[str, dict[str, str]]:
        """The word lists without the concept itself."""
        mine = self.file.words.get(entry.kind, {})
        return {**self.file.words, entry.kind: {label: w for label, w in mine.items() if label != entry.slug}}

    def _sets(self, entry: Entry, recipe: Recipe) -> tuple[PromptSet, PromptSet]:
        words, spoken = self._others(entry), self._spoken(entry)
        for template in (recipe.reference, recipe.target):
            templates.check(template, words)
        both = [*templates.placeholders(recipe.reference), *templates.placeholders(recipe.target)]
        # The salt is the kind, not the slug: concepts that take no word from the reference's lists share one reference
        # set.
        picked = templates.choices(list(dict.fromkeys(both)), words, recipe.pairs, entry.kind)
        reference, target = (
            PromptSet(
                tuple(
                    Prompt(templates.fill(template, words, choice, spoken), recipe.seed + i)
                    for i, choice in enumerate(picked)
                )
            )
            for template in (recipe.reference, recipe.target)
        )
        return reference, target

    def _evaluation(self, entry: Entry, recipe: Recipe | None) -> EvaluationSet:
        if recipe is None:
            return EvaluationSet((), ())
        words = self._others(entry)
        mine = (f"{entry.kind}:{entry.slug}",)
        concept = self._expect(recipe.concept, recipe.concept_prompts, words, self._spoken(entry), mine)
        others = self._expect(recipe.others, recipe.others_prompts, words, None, ())
        return EvaluationSet(concept, others)

    def _expect(
        self, rows: list[str], count: int, words: templates.Words, spoken: str | None, labels: tuple[str, ...]
    ) -> tuple[Expectation, ...]:
        """`count` prompts, dealt to the templates in turn; without `labels`, each word of a judged kind is a label."""
        out: list[Expectation] = []
        for r, template in enumerate(rows):
            templates.check(template, words)
            share = len(range(r, count, len(rows)))
            for choice in templates.choices(templates.placeholders(template), words, share, f"evaluation {template}"):
                named = tuple(f"{kind}:{label}" for kind, label in choice.items() if kind in self.file.recipes)
                prompt = Prompt(templates.fill(template, words, choice, spoken), EVALUATION_SEED + len(out))
                out.append(Expectation(prompt, labels or named))
        return tuple(out)


def load_catalog(path: Path) -> Catalog:
    """The catalog of a TOML file.

    Raises ValueError in one sentence that names the file, the place and what was wrong.
    """
    try:
        return Catalog(CatalogFile.model_validate(tomllib.loads(path.read_text("utf-8"))))
    except FileNotFoundError:
        raise ValueError(f"no catalog at {path}; give the path of a TOML file") from None
    except OSError as error:
        raise ValueError(f"catalog {path} cannot be read: {error.strerror}; give the path of a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"catalog {path} is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ValueError(f"catalog {path}: {place}: {first['msg']}{more}") from None
    except ValueError as error:
        raise ValueError(f"catalog {path}: {error}") from None
