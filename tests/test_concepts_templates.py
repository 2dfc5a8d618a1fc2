"""Templates: words spread evenly over prompts, the same on every machine."""

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


def test_fill_speaks_the_words() -> None:
    choice = {"animal": "owl", "place": "sea"}
    assert templates.fill("{animal} by {place}", WORDS, choice) == "an owl by the sea"
    assert templates.fill("{concept} by {place}", WORDS, choice, "a fox") == "a fox by the sea"
