"""Adversarial token search: it finds what it is asked for, in text that tokenises to what was found."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tasks.attacks import tokens
from tasks.attacks.denoising import Draws, image_draws, latents_of, prediction_draws
from tasks.attacks.tokens import TokenSpec, TokenState, search_tokens
from tests import tiny
from tests.attack_cases import as_found, images, stored, with_pieces

SPEC = TokenSpec(budget=6, tokens=3, candidates=8, shortlist=6)


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny.build()


@pytest.fixture(scope="module")
def draws(pipe: Any) -> Draws:
    return image_draws(pipe, latents_of(pipe, images()), 6, 0)


@pytest.fixture(scope="module")
def whole(pipe: Any, draws: Draws) -> TokenState:
    return search_tokens(pipe, draws, "the rose", SPEC)


@pytest.mark.parametrize("parts", [(2, 4), (0, 1, 5), (5, None)])
def test_parts_are_the_whole(pipe: Any, draws: Draws, whole: TokenState, parts: tuple[int | None, ...]) -> None:
    state = None
    for part in parts:
        state = stored(search_tokens(pipe, draws, "the rose", SPEC, state, steps=part))
    assert state == whole


def nearly_linear() -> Any:
    """The tiny pipeline with words that hardly differ from each other."""
    pipe = tiny.build()
    table = pipe.text_encoder.get_input_embeddings().weight
    table.data = table.data[8] + 0.01 * (table.data - table.data[8])
    return pipe


def test_the_first_of_a_shortlist_is_the_best() -> None:
    pipe = nearly_linear()
    draws = image_draws(pipe, latents_of(pipe, images()), 6, 0)
    every = sorted(tokens._loss(pipe, f"{word} the rose", draws) for word in tiny.WORDS)
    for seed in range(3):
        spec = TokenSpec(budget=1, seed=seed, tokens=1, candidates=1, shortlist=1)
        assert search_tokens(pipe, draws, "the rose", spec).losses[-1] in every[:2]


def test_gains_are_those_of_small_replacements() -> None:
    """First order is exact for vectors that hardly differ: the loss falls by what the gradient says."""
    pipe = nearly_linear()
    draws = image_draws(pipe, latents_of(pipe, images()), 6, 0)
    allowed = np.arange(3, 15)
    state = search_tokens(pipe, draws, "the rose", replace(SPEC, tokens=2), steps=0)
    gains = tokens._gains(pipe, draws, allowed, state)
    words, falls = pipe.tokenizer.convert_ids_to_tokens(list(state.ids)), np.zeros_like(gains)
    for position in range(2):
        for i, token in enumerate(allowed):
            other = list(words)
            other[position] = pipe.tokenizer.convert_ids_to_tokens(int(token))
            falls[position, i] = state.losses[0] - tokens._loss(pipe, f"{' '.join(other)} the rose", draws)
    for position in range(2):
        assert np.corrcoef(gains[position], falls[position])[0, 1] > 0.9


def test_every_step_tries_others(pipe: Any, draws: Draws, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def worse(pipe: Any, prompt: str, draws: Draws) -> float:
        tried.append(prompt)
        return float(len(tried))

    monkeypatch.setattr(tokens, "_loss", worse)
    state = search_tokens(pipe, draws, "the rose", replace(SPEC, candidates=1))
    assert state.ids == search_tokens(pipe, draws, "the rose", SPEC, steps=0).ids  # none was better
    assert len(set(tried)) >= 4


def test_the_loss_never_rises_and_falls(whole: TokenState) -> None:
    assert len(whole.losses) == SPEC.budget + 1
    assert list(whole.losses) == sorted(whole.losses, reverse=True)
    assert whole.losses[-1] < whole.losses[0]


def test_the_prompt_is_text_that_tokenises_to_what_was_found(pipe: Any, draws: Draws, whole: TokenState) -> None:
    ids = pipe.tokenizer(whole.prompt, add_special_tokens=False).input_ids
    assert ids == [*whole.ids, *pipe.tokenizer("the rose", add_special_tokens=False).input_ids]
    assert whole.prompt.endswith(" the rose")
    alone = search_tokens(pipe, draws, "", SPEC, steps=1)
    assert pipe.tokenizer(alone.prompt, add_special_tokens=False).input_ids == list(alone.ids)


def test_the_words_that_the_answers_were_made_with_are_found(pipe: Any) -> None:
    """P4D's aim, where the answer is known: the loss is zero for the prompt itself."""
    draws = prediction_draws(pipe, latents_of(pipe, images()), "fox the rose", 6, 0)
    spec = TokenSpec(budget=10, tokens=1, candidates=12, shortlist=12)
    found = search_tokens(pipe, draws, "the rose", spec)
    assert found.prompt == "fox the rose"
    assert found.losses[-1] < 1e-9 < found.losses[0]


def test_banned_and_special_words_are_never_used(pipe: Any, draws: Draws) -> None:
    banned = tuple(word for word in tiny.WORDS if word not in ("cat", "dog"))
    state = search_tokens(pipe, draws, "", replace(SPEC, banned=banned))
    assert set(state.prompt.split()) <= {"cat", "dog"}
    with pytest.raises(ValueError, match="no token is allowed"):
        search_tokens(pipe, draws, "", replace(SPEC, banned=tuple(tiny.WORDS)))


def test_the_pipeline_is_left_as_it_was(pipe: Any, draws: Draws) -> None:
    before = as_found(pipe)
    search_tokens(pipe, draws, "the rose", SPEC, steps=1)
    assert as_found(pipe) == before

    def stop(state: TokenState) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search_tokens(pipe, draws, "the rose", SPEC, progress=stop)
    assert as_found(pipe) == before


def test_pieces_that_end_no_word_are_not_used() -> None:
    """With CLIP's kind of tokenizer: "fo" alone would be read as another token, or as a part of the next word."""
    pipe = with_pieces()
    draws = image_draws(pipe, latents_of(pipe, images()), 4, 0)
    state = search_tokens(pipe, draws, "cat", replace(SPEC, budget=3, shortlist=30, candidates=30))
    assert pipe.tokenizer(state.prompt, add_special_tokens=False).input_ids == [*state.ids, 57]
    assert all(token.endswith("</w>") for token in pipe.tokenizer.convert_ids_to_tokens(list(state.ids)))
    assert state.losses[-1] < state.losses[0]


def test_the_seed_decides(pipe: Any, draws: Draws, whole: TokenState) -> None:
    assert search_tokens(pipe, draws, "the rose", SPEC) == whole
    assert search_tokens(pipe, draws, "the rose", replace(SPEC, seed=1), steps=0).ids != whole.ids


def test_what_cannot_be_is_refused(pipe: Any, draws: Draws, whole: TokenState) -> None:
    with pytest.raises(ValueError, match="beside the rest there is room for 4"):
        search_tokens(pipe, draws, "the rose", replace(SPEC, tokens=5))
    with pytest.raises(ValueError, match="another TokenSpec"):
        search_tokens(pipe, draws, "the rose", replace(SPEC, candidates=9), whole)
    for wrong in ({"budget": -1}, {"tokens": 0}, {"candidates": 0}, {"shortlist": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
            TokenSpec(**{"budget": 1, **wrong})
