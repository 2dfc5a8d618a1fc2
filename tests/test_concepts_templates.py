"""Templates: words spread evenly over prompts, the same on every machine."""

import hashlib
import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.concepts import templates

WORDS = {
    "animal": {"cat": "a cat", "dog": "a dog", "owl": "an owl"},
    "place": {"sea": "the sea", "wood": "a wood"},
}


def test_choices_are_golden() -> None:
    """The prompts of every catalog follow from these: a change makes every capture anew."""
    assert templates.choices(["animal", "concept", "place"], WORDS, 5, "salt") == [
        {"animal": "owl", "place": "sea"},
        {"animal": "dog", "place": "wood"},
        {"animal": "cat", "place": "sea"},
        {"animal": "owl", "place": "wood"},
        {"animal": "cat", "place": "wood"},
    ]


def test_another_salt_gives_another_order() -> None:
    assert templates.choices(["animal", "place"], WORDS, 5, "salt") != templates.choices(
        ["animal", "place"], WORDS, 5, "pepper"
    )


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=3),
    st.integers(1, 60),
    st.text(st.characters(codec="utf-8"), max_size=5),
)
def test_choices_spread_evenly(sizes: list[int], count: int, salt: str) -> None:
    words = {f"list{i}": {f"w{i}-{j}": "words" for j in range(size)} for i, size in enumerate(sizes)}
    taken = templates.choices(list(words), words, count, salt)
    assert len(taken) == count
    combinations = Counter(tuple(sorted(choice.items())) for choice in taken)
    total = 1
    for size in sizes:
        total *= size
    assert len(combinations) == min(count, total)
    assert max(combinations.values()) - (min(combinations.values()) if count >= total else 0) <= 1
    if len(sizes) == 1:
        used = Counter(choice["list0"] for choice in taken)
        assert max(used.values()) - min(used.get(label, 0) for label in words["list0"]) <= 1


def naive(words: templates.Words, count: int, salt: str) -> list[templates.Choice]:
    """The rule in its shortest form: the first among the least used of those that were not dealt in this round."""
    pool = [dict(zip(words, labels, strict=True)) for labels in itertools.product(*words.values())]
    pool.sort(key=lambda choice: hashlib.sha256(f"{salt} {sorted(choice.items())}".encode()).digest())
    used: Counter[tuple[str, str]] = Counter()
    rest: list[templates.Choice] = []
    taken: list[templates.Choice] = []
    for _ in range(count):
        rest = rest or list(pool)
        taken.append(min(rest, key=lambda choice: sum(used[item] for item in choice.items())))
        rest.remove(taken[-1])
        used.update(taken[-1].items())
    return taken


@given(st.data(), st.lists(st.integers(2, 6), max_size=3), st.integers(0, 80), st.text("ab", max_size=3))
def test_a_deck_without_some_words_deals_as_if_they_never_were(
    data: st.DataObject, sizes: list[int], count: int, salt: str
) -> None:
    words = {f"list{i}": {f"w{j}": "words" for j in range(size)} for i, size in enumerate(sizes)}
    out = {(name, data.draw(st.sampled_from(sorted(words[name])))) for name in words if data.draw(st.booleans())}
    left = {
        name: {label: w for label, w in labels.items() if (name, label) not in out} for name, labels in words.items()
    }
    assert templates.Deck(list(words), words, salt).deal(count, out) == naive(left, count, salt)
    assert templates.choices(list(left), left, count, salt) == naive(left, count, salt)


def test_a_deck_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no combination of words is left"):
        templates.Deck(["place"], WORDS, "").deal(1, [("place", "sea"), ("place", "wood")])


def test_too_many_combinations_are_refused_before_they_are_made() -> None:
    words = {name: {str(i): "x" for i in range(1000)} for name in ("a", "b", "c")}
    with pytest.raises(ValueError, match="has 1000000000 combinations of words; use fewer or shorter lists"):
        templates.check("{a} {b} {c}", words)


def test_the_demo_recipe_uses_every_word_alike() -> None:
    words = {
        "style": {s: s for s in "abcd"},
        "background": {b: b for b in "12345"},
        "object": {str(i): "x" for i in range(51)},
    }
    taken = templates.choices(["object", "style", "background"], words, 20, "object")
    assert Counter(choice["style"] for choice in taken) == dict.fromkeys("abcd", 5)
    assert Counter(choice["background"] for choice in taken) == dict.fromkeys("12345", 4)
    assert len({choice["object"] for choice in taken}) == 20


def test_choices_do_not_depend_on_the_lists_order() -> None:
    turned = {name: dict(reversed(labels.items())) for name, labels in reversed(WORDS.items())}
    names = ["animal", "place"]
    assert templates.choices(names, turned, 6, "salt") == templates.choices(names, WORDS, 6, "salt")


def test_an_empty_list_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="place"):
        templates.check("a cat at {place}", {**WORDS, "place": {}})


def test_placeholders_come_once_and_in_order() -> None:
    assert templates.placeholders("{concept} by {animal}, {place} and {animal}") == ["concept", "animal", "place"]
    assert templates.placeholders("no {{braces}} here") == []


@pytest.mark.parametrize("template", ["a {", "a }", "{style"])
def test_a_template_that_cannot_be_read_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="cannot be read .*; write names in braces"):
        templates.placeholders(template)


@pytest.mark.parametrize("template", ["{stile}", "{}", "{0}", "{animal.__class__}", "{animal[0]}"])
def test_a_placeholder_without_a_list_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="no word list; known are concept, animal, place"):
        templates.check(template, WORDS)


@pytest.mark.parametrize("template", ["{animal!r}", "{animal:>9}", "{animal:{place}}"])
def test_a_template_that_formats_its_words_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match="formats its words; write only names in braces"):
        templates.check(template, WORDS)


def test_fill_speaks_the_words() -> None:
    choice = {"animal": "owl", "place": "sea"}
    assert templates.fill("{animal} by {place}", WORDS, choice) == "an owl by the sea"
    assert templates.fill("{concept} by {place}", WORDS, choice, "a fox") == "a fox by the sea"
