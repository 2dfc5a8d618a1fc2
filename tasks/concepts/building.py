"""Concepts from a catalog's entries: prompt sets from recipes, one object where several concepts have the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tasks.concepts import templates
from tasks.concepts.catalog_file import Entry, Recipe
from tasks.concepts.concept import Concept, EvaluationSet, Expectation
from tasks.concepts.problems import closest
from tasks.concepts.prompts import MAX_TEXT, Prompt, PromptSet
from tasks.concepts.templates import Choice, Deck, Item

EVALUATION_SEED = 1_000_000  # evaluation prompts are drawn from other noise than captured ones


class Builder:
    """Builds the concepts of one catalog; what they have in common is made once."""

    def __init__(self, words: templates.Words, recipes: Mapping[str, Recipe]) -> None:
        self.words, self.recipes = words, recipes
        self._labels: dict[Item, list[str]] = {}  # (list, words): the labels that say so
        for name, labels in words.items():
            for label, spoken in labels.items():
                self._labels.setdefault((name, spoken.casefold()), []).append(label)
        self._decks: dict[tuple[tuple[str, ...], str], Deck] = {}
        self._hands: dict[tuple[tuple[str, ...], str, int], list[Choice]] = {}
        self._sets: dict[PromptSet, PromptSet] = {}
        self._others: dict[tuple[str, frozenset[Item]], tuple[Expectation, ...]] = {}

    def missing(self, entry: Entry) -> Iterator[str]:
        """What the entry, or the catalog, lacks to build a concept of it: ends of "concept rose ..."."""
        recipe = self.recipes.get(entry.kind)
        if recipe is None and entry.reference is None and entry.target is None:
            known = ", ".join(self.recipes) or "none"
            meant = closest(entry.kind, self.recipes)
            yield (
                f"has kind {entry.kind!r}, which has no recipe (there are: {known}), and no reference and target "
                f"prompts of its own{f'; did you mean {meant}?' if meant else ''}"
            )
        if recipe is not None and self._spoken(entry) is None and _speaks(recipe, entry):
            yield f'has no words; give words = "..." or put it into [words.{entry.kind}]'

    def build(self, entry: Entry) -> Concept:
        """The concept of an entry that lacks nothing. Raises ValueError in one sentence."""
        recipe = self.recipes.get(entry.kind)
        without = self._own_items(entry)
        if entry.reference is not None and entry.target is not None:
            reference, target = (
                PromptSet(tuple(Prompt(text, entry.seed_of(i)) for i, text in enumerate(texts)))
                for texts in (entry.reference, entry.target)
            )
        elif recipe is not None:
            reference, target = self._pair(entry, recipe, without)
        else:
            raise ValueError("neither a recipe nor prompts of its own")
        if reference == target:
            raise ValueError("reference and target are the same prompts; nothing tells the concept apart")
        evaluation = EvaluationSet((), ()) if recipe is None else self._evaluation(entry, recipe, without)
        return Concept(entry.slug, entry.kind, self._shared(reference), self._shared(target), evaluation)

    def _spoken(self, entry: Entry) -> str | None:
        return entry.words or self.words.get(entry.kind, {}).get(entry.slug)

    def _own_items(self, entry: Entry) -> frozenset[Item]:
        """The concept itself in its kind's word list: at its slug, and wherever its words are."""
        own = [entry.slug] if entry.slug in self.words.get(entry.kind, {}) else []
        if spoken := self._spoken(entry):
            own += self._labels.get((entry.kind, spoken.casefold()), [])
        return frozenset((entry.kind, label) for label in own)

    def _shared(self, prompts: PromptSet) -> PromptSet:
        """One object for equal sets, so that its digest is computed once."""
        return self._sets.setdefault(prompts, prompts)

    def _pair(self, entry: Entry, recipe: Recipe, without: frozenset[Item]) -> tuple[PromptSet, PromptSet]:
        # The salt is the kind, not the slug: concepts that take no word from the reference's lists share one reference
        # set.
        both = f"{recipe.reference} {recipe.target}"
        picked = self._deal(both, recipe.pairs, entry.kind, without)
        spoken = self._spoken(entry)
        reference, target = (
            PromptSet(tuple(Prompt(self._fill(template, c, spoken), recipe.seed_of(i)) for i, c in enumerate(picked)))
            for template in (recipe.reference, recipe.target)
        )
        return reference, target

    def _evaluation(self, entry: Entry, recipe: Recipe, without: frozenset[Item]) -> EvaluationSet:
        mine = (f"{entry.kind}:{entry.slug}",)
        concept = self._expect(recipe.concept, recipe.concept_prompts, without, self._spoken(entry), mine)
        key = (entry.kind, without)
        if key not in self._others:
            self._others[key] = self._expect(recipe.others, recipe.others_prompts, without, None, ())
        return EvaluationSet(concept, self._others[key])

    def _expect(
        self, rows: list[str], count: int, without: frozenset[Item], spoken: str | None, labels: tuple[str, ...]
    ) -> tuple[Expectation, ...]:
        """`count` prompts, dealt to the templates in turn; without `labels`, each word of a judged kind is a label."""
        out: list[Expectation] = []
        for r, template in enumerate(rows):
            share = len(range(r, count, len(rows)))
            for choice in self._deal(template, share, f"evaluation {template}", without):
                named = tuple(f"{kind}:{label}" for kind, label in choice.items() if kind in self.recipes)
                prompt = Prompt(self._fill(template, choice, spoken), EVALUATION_SEED + len(out))
                out.append(Expectation(prompt, labels or named))
        return tuple(out)

    def _deal(self, template: str, count: int, salt: str, without: frozenset[Item]) -> list[Choice]:
        """Words for a template, none of them the concept's own."""
        names = tuple(name for name in templates.placeholders(template) if name != templates.CONCEPT)
        hand = (names, salt, count)
        own = {item for item in without if item[0] in names}
        if not own and hand in self._hands:
            return self._hands[hand]
        for name, _ in own:
            if len(own) == len(self.words[name]):
                raise ValueError(f"template {template!r} has {{{name}}}, but no word is left in that list; add some")
        if hand[:2] not in self._decks:
            self._decks[hand[:2]] = Deck(names, self.words, salt)
        dealt = self._decks[hand[:2]].deal(count, own)
        return dealt if own else self._hands.setdefault(hand, dealt)

    def _fill(self, template: str, choice: Choice, spoken: str | None) -> str:
        text = templates.fill(template, self.words, choice, spoken)
        if len(text) > MAX_TEXT:
            raise ValueError(f"a template makes a prompt of {len(text)} characters; {MAX_TEXT} are the most")
        return text


def _speaks(recipe: Recipe, entry: Entry) -> bool:
    """Whether a template that the entry needs has the concept's words."""
    needed = list(recipe.concept)
    if entry.reference is None:
        needed += [recipe.reference, recipe.target]
    return any(templates.CONCEPT in templates.placeholders(template) for template in needed)
