"""Prompts and prompt sets: addresses that never change by accident."""

import pytest

from tasks.concepts.prompts import MAX_SEED, Prompt, PromptSet

PROMPTS = (Prompt("a fox", 0), Prompt("a fox", 1), Prompt("un renard à l'aube", 2**31))


def test_digests_are_golden() -> None:
    """A stored prompt set is found by its digest: a change here orphans every store."""
    assert PromptSet(PROMPTS).digest == "0d0b18d37c1e13c2"
    assert [prompt.name for prompt in PROMPTS] == ["2505d750710393fe", "87344efd805cfd36", "d207b380dda501c1"]


def test_order_changes_the_digest() -> None:
    assert PromptSet(PROMPTS[::-1]).digest == "6418254b24e5a70b" != PromptSet(PROMPTS).digest


@pytest.mark.parametrize(
    "other",
    [
        (Prompt("a fox", 0), Prompt("a fox", 2), PROMPTS[2]),  # another seed
        (Prompt("a fox ", 0), *PROMPTS[1:]),  # another text
        PROMPTS[:2],
        (*PROMPTS, Prompt("a cat", 0)),
    ],
)
def test_every_change_changes_the_digest(other: tuple[Prompt, ...]) -> None:
    assert PromptSet(other).digest != PromptSet(PROMPTS).digest


def test_text_and_seed_cannot_be_confused() -> None:
    assert Prompt("a fox 1", 2).name != Prompt("a fox ", 12).name
    assert PromptSet((Prompt("a", 0), Prompt("b", 0))).digest != PromptSet((Prompt('a",0],["b', 0),)).digest


def test_a_repeated_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="'a fox' with seed 1 stands twice in a set; give it another seed"):
        PromptSet((*PROMPTS, Prompt("a fox", 1)))


def test_one_text_may_have_many_seeds() -> None:
    assert len(PromptSet(tuple(Prompt("a fox", seed) for seed in range(50)))) == 50


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one prompt"):
        PromptSet(())


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=f"seed {seed} is out of range"):
        Prompt("a fox", seed)
