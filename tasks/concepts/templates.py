"""Prompts from templates: "{concept} on a {background} background", with words from a catalog's lists."""

from __future__ import annotations

import hashlib
import itertools
import string
from collections.abc import Mapping, Sequence

CONCEPT = "concept"  # the placeholder of the concept's own words

Words = Mapping[str, Mapping[str, str]]  # list name: {label: words}, e.g. {"object": {"owl": "an owl"}}
Choice = dict[str, str]  # list name: label


def placeholders(template: str) -> list[str]:
    """The names in braces, in order, each once. Raises ValueError for a template that str.format cannot fill.

    >>> placeholders("{concept} in the style of {style}")
    ['concept', 'style']
    """
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ValueError(
            f"template {template!r} cannot be read ({error}); write names in braces, as in {{style}}"
        ) from None
    return list(dict.fromkeys(fields))


def check(template: str, words: Words) -> None:
    """Raises ValueError when a placeholder names no list, or an empty one."""
    for name in placeholders(template):
        if name != CONCEPT and name not in words:
            known = ", ".join([CONCEPT, *words])
            raise ValueError(f"template {template!r} has {{{name}}}, which is no word list; known are {known}")
        if name != CONCEPT and not words[name]:
            raise ValueError(f"template {template!r} has {{{name}}}, but no word is left in that list; add some")


def choices(names: Sequence[str], words: Words, count: int, salt: str) -> list[Choice]:
    """`count` combinations of labels of the named lists, spread evenly over each list and the same on every machine.

    Combinations come in an order drawn by sha256, those with the least used labels first; when there are fewer than
    `count`, they repeat.
    """
    lists = [name for name in names if name != CONCEPT]
    pool = [dict(zip(lists, labels, strict=True)) for labels in itertools.product(*(words[name] for name in lists))]
    pool.sort(key=lambda choice: hashlib.sha256(f"{salt} {sorted(choice.items())}".encode()).digest())
    used: dict[tuple[str, str], int] = {}
    taken: list[Choice] = []
    rest = list(pool)
    while len(taken) < count:
        best = min(rest, key=lambda choice: sum(used.get(item, 0) for item in choice.items()))
        rest.remove(best)
        taken.append(best)
        for item in best.items():
            used[item] = used.get(item, 0) + 1
        rest = rest or list(pool)
    return taken


def fill(template: str, words: Words, choice: Choice, concept: str | None = None) -> str:
    """The template with the chosen words."""
    spoken = {name: words[name][label] for name, label in choice.items()}
    return template.format(**spoken, **({} if concept is None else {CONCEPT: concept}))
