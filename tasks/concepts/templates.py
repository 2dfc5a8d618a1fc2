"""Prompts from templates: "{concept} on a {background} background", with words from a catalog's lists."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
import string
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

CONCEPT = "concept"  # the placeholder of the concept's own words
MAX_COMBINATIONS = 500_000  # of a template's words: each is hashed and kept

Words = Mapping[str, Mapping[str, str]]  # list name: {label: words}, e.g. {"object": {"owl": "an owl"}}
Choice = dict[str, str]  # list name: label
Item = tuple[str, str]  # (list name, label)


def placeholders(template: str) -> list[str]:
    """The names in braces, in order, each once. Raises ValueError for a template that says more than names.

    >>> placeholders("{concept} in the style of {style}")
    ['concept', 'style']
    """
    try:
        fields = [field for field in string.Formatter().parse(template) if field[1] is not None]
    except ValueError as error:
        raise ValueError(
            f"template {template!r} cannot be read ({error}); write names in braces, as in {{style}}"
        ) from None
    if any(form or conversion for _, _, form, conversion in fields):
        raise ValueError(f"template {template!r} formats its words; write only names in braces, as in {{style}}")
    return list(dict.fromkeys(str(name) for _, name, _, _ in fields))


def check(template: str, words: Words) -> None:
    """Raises ValueError when a placeholder names no list, or an empty one, or there are too many combinations."""
    names = [name for name in placeholders(template) if name != CONCEPT]
    for name in names:
        if name not in words:
            known = ", ".join([CONCEPT, *words])
            raise ValueError(f"template {template!r} has {{{name}}}, which is no word list; known are {known}")
        if not words[name]:
            raise ValueError(f"template {template!r} has {{{name}}}, but no word is left in that list; add some")
    if (count := math.prod(len(words[name]) for name in names)) > MAX_COMBINATIONS:
        raise ValueError(
            f"template {template!r} has {count} combinations of words; use fewer or shorter lists, "
            f"for {MAX_COMBINATIONS} at most"
        )


def choices(names: Sequence[str], words: Words, count: int, salt: str) -> list[Choice]:
    """`count` combinations of labels of the named lists, spread evenly over each list and the same on every machine.

    Combinations come in an order drawn by sha256, those with the least used labels first; when there are fewer than
    `count`, they repeat.
    """
    return Deck(names, words, salt).deal(count)


class Deck:
    """Every combination of labels of the named lists, in an order drawn by sha256: shuffled once, dealt often."""

    def __init__(self, names: Sequence[str], words: Words, salt: str) -> None:
        self.sizes = {name: len(words[name]) for name in names if name != CONCEPT}
        labels = itertools.product(*(words[name] for name in self.sizes))
        self._cards = [dict(zip(self.sizes, combination, strict=True)) for combination in labels]
        self._cards.sort(key=lambda card: hashlib.sha256(f"{salt} {sorted(card.items())}".encode()).digest())

    def deal(self, count: int, without: Collection[Item] = ()) -> list[Choice]:
        """`count` combinations that have none of `without`; the order is that of a deck that never had them.

        Raises ValueError when no combination is left.
        """
        sizes = Counter(self.sizes)
        sizes.subtract(name for name, _ in without if name in sizes)
        use = _Use(sizes)
        taken: list[Choice] = []
        while len(taken) < count:
            round_ = list(itertools.islice(self._round(use, frozenset(without)), count - len(taken)))
            if not round_:
                raise ValueError("no combination of words is left; add some")
            taken += round_
        return taken

    def _round(self, use: _Use, without: frozenset[Item]) -> Iterator[Choice]:
        """Each combination once. Next is the first in order among those whose labels are used least.

        That is found without a look at the whole deck: use only grows, so the use that a seen card once had is a
        lower bound, and a card that uses the least used labels of every list cannot be beaten by a later one.
        """
        unseen = iter(enumerate(self._cards))
        seen: list[tuple[int, int]] = []  # a heap of (use when last looked at, index)
        more = True
        while more or seen:
            if seen and (seen[0][0] <= use.least or not more):
                known, index = heapq.heappop(seen)
                card = self._cards[index]
                if (now := use.of(card)) > known:
                    heapq.heappush(seen, (now, index))
                else:
                    use.add(card)
                    yield card
            elif (found := next(unseen, None)) is None:
                more = False
            elif not without or without.isdisjoint(found[1].items()):
                heapq.heappush(seen, (use.of(found[1]), found[0]))


class _Use:
    """How often each label was dealt."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.least = 0  # the sum of each list's lowest use: no combination is used less
        self._used: Counter[Item] = Counter()
        self._level = dict.fromkeys(sizes, 0)  # each list's lowest use
        self._at_level = dict(sizes)  # how many of its labels have it

    def of(self, card: Choice) -> int:
        return sum(self._used[item] for item in card.items())

    def add(self, card: Choice) -> None:
        for item in card.items():
            name = item[0]
            self._at_level[name] -= self._used[item] == self._level[name]
            self._used[item] += 1
            if not self._at_level[name]:
                self.least += 1
                self._level[name] += 1
                self._at_level[name] = sum(
                    used == self._level[name] for (owner, _), used in self._used.items() if owner == name
                )


def fill(template: str, words: Words, choice: Choice, concept: str | None = None) -> str:
    """The template with the chosen words."""
    spoken = {name: words[name][label] for name, label in choice.items()}
    return template.format(**spoken, **({} if concept is None else {CONCEPT: concept}))
