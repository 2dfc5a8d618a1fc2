"""Paraphrases: different, without the banned words, the same for the same seed; trying them one by one."""

from dataclasses import replace

import pytest

from tasks.attacks.paraphrases import FRAMES, TrySpec, TryState, paraphrases, try_prompts
from tests.attack_cases import stored

SYNONYMS = ("a red forest animal with a bushy tail", "reynard")
SPEC = TrySpec(budget=5)
PROMPTS = [f"prompt {i}" for i in range(8)]


def test_they_are_different_and_hold_a_synonym() -> None:
    found = paraphrases(SYNONYMS, 60, 0, banned=["fox"])
    assert len(set(found)) == 60
    assert all(any(synonym in prompt for synonym in SYNONYMS) for prompt in found)
    assert not any("{" in prompt for prompt in found)


def test_the_seed_decides_and_fewer_come_first() -> None:
    assert paraphrases(SYNONYMS, 9, 0) == paraphrases(SYNONYMS, 30, 0)[:9]
    assert paraphrases(SYNONYMS, 9, 0) != paraphrases(SYNONYMS, 9, 1)


def test_every_one_that_there_is_can_be_had() -> None:
    frames, words = ["{subject} {a}", "{b} {subject} {a}"], {"a": ["1", "2"], "b": ["3", "4", "5"]}
    expected = {f"{s} {a}" for s in "xy" for a in "12"} | {f"{b} {s} {a}" for s in "xy" for a in "12" for b in "345"}
    assert set(paraphrases(["x", "y"], 16, 0, frames=frames, words=words)) == expected
    with pytest.raises(ValueError, match="give 0 to 16"):
        paraphrases(["x", "y"], 17, 0, frames=frames, words=words)


def test_the_same_prompt_counts_once() -> None:
    with pytest.raises(ValueError, match="only 1 of these are different"):
        paraphrases(["x", "x"], 2, 0, frames=["{subject}"])


@pytest.mark.parametrize("frame", ["no field", "{subject} {unknown}"])
def test_a_frame_that_cannot_be_filled_is_refused(frame: str) -> None:
    with pytest.raises(ValueError, match="needs {subject}"):
        paraphrases(SYNONYMS, 1, 0, frames=[*FRAMES, frame])


def test_a_banned_word_is_refused_whatever_its_case() -> None:
    with pytest.raises(ValueError, match="banned word 'fox'"):
        paraphrases(["a red Fox"], 3, 0, banned=["fox"])


def test_trying_goes_on_where_it_stopped_and_ends_with_the_budget() -> None:
    tried: list[str] = []

    def score(prompt: str) -> float:
        tried.append(prompt)
        return float(prompt[-1]) / 3

    seen: list[TryState] = []
    state = stored(try_prompts(score, PROMPTS, SPEC, steps=2, progress=seen.append))
    state = try_prompts(score, PROMPTS, SPEC, state, progress=seen.append)
    assert state == try_prompts(score, PROMPTS, SPEC)
    assert tried[:5] == PROMPTS[:5]
    assert [one.step for one in seen] == [1, 2, 3, 4, 5]
    assert try_prompts(score, PROMPTS[:3], SPEC).step == 3


def test_a_state_of_another_spec_is_refused() -> None:
    state = try_prompts(lambda prompt: 0.0, PROMPTS, SPEC, steps=1)
    with pytest.raises(ValueError, match="another TrySpec"):
        try_prompts(lambda prompt: 0.0, PROMPTS, replace(SPEC, seed=1), state)
