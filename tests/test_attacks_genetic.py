"""The genetic search: it climbs a fitness that is known, resumes, and asks for no prompt twice."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tasks.attacks.genetic import GeneticSpec, GeneticState, search_prompts
from tests.attack_cases import stored

WORDS = [f"w{i}" for i in range(20)]
AIM = "w3 w1 w4 w15"
SPEC = GeneticSpec(budget=30, words=4, population=16)


def fitness(prompts: Sequence[str]) -> list[float]:
    return [sum(a == b for a, b in zip(prompt.split(), AIM.split(), strict=False)) for prompt in prompts]


def test_it_finds_the_aim_that_chance_would_not() -> None:
    state = search_prompts(fitness, WORDS, SPEC)
    assert state.best[0] < 3
    assert state.prompt == AIM  # chance: 500 of 160,000
    assert len(state.scores) <= 16 * 31
    assert list(state.best) == sorted(state.best)


def test_parts_are_the_whole() -> None:
    state = None
    for part in (0, 4, 1, None):
        state = stored(search_prompts(fitness, WORDS, SPEC, state, steps=part))
    assert state == search_prompts(fitness, WORDS, SPEC)


def test_no_prompt_is_tried_twice_and_a_generation_is_one_call() -> None:
    calls: list[list[str]] = []

    def counting(prompts: Sequence[str]) -> list[float]:
        calls.append(list(prompts))
        return fitness(prompts)

    state = search_prompts(counting, WORDS[:3], replace(SPEC, words=2, budget=8))
    tried = [prompt for call in calls for prompt in call]
    assert len(tried) == len(set(tried)) == len(state.scores)
    assert len(calls) <= 9


def test_prompts_are_of_the_words_and_of_their_number() -> None:
    state = search_prompts(fitness, WORDS, replace(SPEC, budget=3))
    assert all(len(prompt.split()) == 4 and set(prompt.split()) <= set(WORDS) for prompt in state.scores)


def test_the_seed_decides_and_progress_is_told() -> None:
    seen: list[GeneticState] = []
    one = search_prompts(fitness, WORDS, replace(SPEC, budget=4), progress=seen.append)
    assert [state.step for state in seen] == [1, 2, 3, 4]
    assert seen[-1] is one
    assert search_prompts(fitness, WORDS, replace(SPEC, budget=4, seed=1)).scores != one.scores


@pytest.mark.parametrize("words", [[], ["one"], ["one", "one"], ["one", "two words"], ["one", ""]])
def test_a_list_that_makes_no_prompts_is_refused(words: list[str]) -> None:
    with pytest.raises(ValueError, match="two different words"):
        search_prompts(fitness, words, SPEC)


@pytest.mark.parametrize("wrong", [lambda prompts: [1.0], lambda prompts: [float("nan")] * len(prompts)])
def test_a_fitness_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="one finite number each"):
        search_prompts(wrong, WORDS, SPEC)


def test_a_state_of_another_spec_is_refused() -> None:
    state = search_prompts(fitness, WORDS, SPEC, steps=1)
    with pytest.raises(ValueError, match="another GeneticSpec"):
        search_prompts(fitness, WORDS, replace(SPEC, mutation=0.5), state)
    assert search_prompts(fitness, WORDS, replace(SPEC, budget=1), state) is state


@pytest.mark.parametrize("wrong", [{"budget": -1}, {"words": 0}, {"population": 2}, {"elite": 0}, {"mutation": 1.1}])
def test_a_spec_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
        GeneticSpec(**{"budget": 1, **wrong})
