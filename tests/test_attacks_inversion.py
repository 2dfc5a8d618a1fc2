"""Concept inversion: what is learned, that it resumes bit for bit, and that the pipeline stays as it was."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tasks.attacks import inversion
from tasks.attacks.denoising import image_draws, latents_of, losses, text_states, token_ids
from tasks.attacks.inversion import InversionSpec, InversionState, invert, with_placeholder
from tasks.concepts.prompts import Prompt
from tasks.diffusion.pipelines import generate
from tasks.diffusion.spec import CaptureSpec
from tests import tiny
from tests.attack_cases import as_found, images, raising, stored, with_pieces

TEMPLATES = ("a {}", "photo of {}")
SPEC = InversionSpec(budget=8, vectors=2, batch=4, learning_rate=0.05)


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny.build()


@pytest.fixture(scope="module")
def whole(pipe: Any) -> InversionState:
    return invert(pipe, images(), TEMPLATES, SPEC)


def same(one: InversionState, other: InversionState) -> bool:
    (arrays, values), (others, other_values) = one.pack(), other.pack()
    return values == other_values and all(arrays[name].tobytes() == others[name].tobytes() for name in arrays)


@pytest.mark.parametrize("parts", [(3, 5), (1, 1, 6), (0, 8), (3, None)])
def test_parts_are_the_whole_bit_for_bit(pipe: Any, whole: InversionState, parts: tuple[int | None, ...]) -> None:
    state = None
    for part in parts:
        state = invert(pipe, images(), TEMPLATES, SPEC, state, steps=part)
        state = stored(state)
    assert state is not None
    assert same(state, whole)
    assert (state.step, len(state.losses)) == (8, 8)


def test_nothing_is_done_beyond_the_budget_and_a_larger_one_goes_on(pipe: Any, whole: InversionState) -> None:
    assert invert(pipe, images(), TEMPLATES, SPEC, whole, steps=5) is whole
    assert invert(pipe, images(), TEMPLATES, replace(SPEC, budget=9), whole).step == 9


def test_another_spec_is_refused(pipe: Any, whole: InversionState) -> None:
    with pytest.raises(ValueError, match="another InversionSpec"):
        invert(pipe, images(), TEMPLATES, replace(SPEC, seed=1), whole)


def test_the_seed_decides(pipe: Any, whole: InversionState) -> None:
    torch.manual_seed(5)
    assert same(invert(pipe, images(), TEMPLATES, SPEC), whole)
    assert not same(invert(pipe, images(), TEMPLATES, replace(SPEC, seed=1)), whole)


def test_learning_lowers_the_loss_on_noise_that_it_has_not_seen(pipe: Any) -> None:
    """The random model cannot denoise, but what it reads moves its answer: a long enough run finds better words."""
    spec = InversionSpec(budget=60, vectors=2, batch=8, learning_rate=0.1)
    draws = image_draws(pipe, latents_of(pipe, images()), 64, 99)
    ids = token_ids(pipe, ["a rose"]).clone()
    ids[0, 2:4] = torch.tensor([15, 16])

    def loss(state: InversionState) -> float:
        with torch.no_grad():
            states = text_states(pipe, ids, torch.from_numpy(state.vectors)).expand(64, -1, -1)
            return float(losses(pipe, states, draws).mean())

    before, after = (loss(invert(pipe, images(), ["a {}"], spec, steps=steps)) for steps in (0, 60))
    assert after < before - 1e-3


def test_the_gradient_is_that_of_the_loss(pipe: Any) -> None:
    """Against finite differences along the gradient itself."""
    spec = InversionSpec(budget=1, vectors=1, batch=4)
    state = invert(pipe, images(), TEMPLATES, spec, steps=0)
    latents = latents_of(pipe, images())
    ids = token_ids(pipe, ["a rose", "photo of rose"])
    ids[ids == tiny.tokenizer().convert_tokens_to_ids("rose")] = 15

    def at(change: np.ndarray) -> tuple[float, np.ndarray]:
        return inversion._gradient(pipe, latents, ids, spec, replace(state, vectors=state.vectors + change))

    _, gradient = at(np.zeros_like(state.vectors))
    step = (0.003 / np.linalg.norm(gradient) * gradient).astype(np.float32)
    slope = (at(step)[0] - at(-step)[0]) / 0.006
    assert slope == pytest.approx(float(np.linalg.norm(gradient)), rel=0.05)


def test_every_step_looks_at_other_noise(pipe: Any) -> None:
    still = invert(pipe, images(1), ["a {}"], replace(SPEC, learning_rate=1e-12))
    assert len(set(still.losses)) == SPEC.budget


def test_a_step_is_adams(pipe: Any) -> None:
    state = invert(pipe, images(), TEMPLATES, SPEC, steps=0)
    parameter = torch.nn.Parameter(torch.from_numpy(state.vectors.copy()))
    adam = torch.optim.Adam([parameter], lr=0.05)
    for seed in range(4):
        gradient = np.random.default_rng(seed).standard_normal(state.vectors.shape).astype(np.float32)
        state = inversion._stepped(state, 0.0, gradient, 0.05)
        parameter.grad = torch.from_numpy(gradient)
        adam.step()
    np.testing.assert_allclose(state.vectors, parameter.detach().numpy(), atol=1e-5)


def test_it_starts_from_the_words_that_are_given(pipe: Any) -> None:
    table = pipe.text_encoder.get_input_embeddings().weight.detach().numpy()
    ids = pipe.tokenizer.convert_tokens_to_ids(["fox", "rose"])
    state = invert(pipe, images(), TEMPLATES, InversionSpec(budget=1, vectors=3, initial="fox rose"), steps=0)
    assert np.array_equal(state.vectors, table[[ids[0], ids[1], ids[0]]])


def test_the_pipeline_is_left_as_it_was(pipe: Any) -> None:
    pipe.unet.conv_in.train()
    before = as_found(pipe)
    invert(pipe, images(), TEMPLATES, SPEC, steps=2)
    assert as_found(pipe) == before


def test_the_pipeline_is_left_as_it_was_when_progress_raises(pipe: Any) -> None:
    before = as_found(pipe)
    seen: list[int] = []

    def stop(state: InversionState) -> None:
        seen.append(state.step)
        if state.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        invert(pipe, images(), TEMPLATES, SPEC, progress=stop)
    assert seen == [1, 2]
    assert as_found(pipe) == before


@pytest.mark.parametrize("count", [1, 3])
def test_a_placeholder_that_means_a_word_draws_as_the_word(pipe: Any, count: int) -> None:
    words = ["fox", "of", "rose"][:count]
    table = pipe.text_encoder.get_input_embeddings().weight.detach().numpy()
    before = as_found(pipe)
    spec = CaptureSpec(steps=2)
    (plain,) = generate(pipe, [Prompt(f"a {' '.join(words)}", 3)], spec)
    with with_placeholder(pipe, table[pipe.tokenizer.convert_tokens_to_ids(words)]) as changed:
        (own,) = generate(changed, [Prompt("a <concept>", 3)], spec)
        (other,) = generate(changed, [Prompt("a apple", 3)], spec)
    assert np.array_equal(np.asarray(plain), np.asarray(own))
    assert not np.array_equal(np.asarray(plain), np.asarray(other))
    assert as_found(pipe) == before


def test_a_placeholder_among_pieces_draws_as_its_words() -> None:
    pipe = with_pieces()
    before = as_found(pipe)
    ids = pipe.tokenizer("cat fox", add_special_tokens=False).input_ids
    table = pipe.text_encoder.get_input_embeddings().weight.detach().numpy()
    (plain,) = generate(pipe, [Prompt("a cat fox b", 3)], CaptureSpec(steps=2))
    with with_placeholder(pipe, table[ids]):
        (own,) = generate(pipe, [Prompt("a <concept> b", 3)], CaptureSpec(steps=2))
    assert np.array_equal(np.asarray(plain), np.asarray(own))
    assert as_found(pipe) == before
    assert invert(pipe, images(), ["a {} b"], SPEC, steps=1).step == 1


def test_the_placeholder_goes_also_when_the_block_raises(pipe: Any) -> None:
    before = as_found(pipe)
    context = with_placeholder(pipe, np.zeros((2, tiny.WIDTH), np.float32))
    with pytest.raises(KeyError, match="on purpose"):
        raising(context, lambda: len(pipe.tokenizer) == 17)
    assert as_found(pipe) == before


@pytest.mark.parametrize(
    ("vectors", "name", "said"),
    [((1, 9), "<concept>", "embedding of width 8"), ((8,), "<concept>", "width 8"), ((1, 8), "fox", "knows fox")],
)
def test_a_placeholder_that_cannot_be_is_refused(pipe: Any, vectors: tuple[int, ...], name: str, said: str) -> None:
    before = as_found(pipe)
    with pytest.raises(ValueError, match=said), with_placeholder(pipe, np.zeros(vectors, np.float32), name):
        pass
    assert as_found(pipe) == before


def test_what_cannot_be_learned_is_refused(pipe: Any) -> None:
    for templates in ((), ("a fox",)):
        with pytest.raises(ValueError, match="each template needs"):
            invert(pipe, images(), templates, SPEC)
    with pytest.raises(ValueError, match="no images"):
        invert(pipe, [], TEMPLATES, SPEC)
    with pytest.raises(ValueError, match="tokens, but the text encoder reads"):
        invert(pipe, images(), ["a photo of the {} in style"], replace(SPEC, vectors=3))
    with pytest.raises(ValueError, match="steps is -1"):
        invert(pipe, images(), TEMPLATES, SPEC, steps=-1)


@pytest.mark.parametrize("wrong", [{"budget": -1}, {"vectors": 0}, {"batch": 0}, {"learning_rate": 0.0}])
def test_a_spec_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
        InversionSpec(**{"budget": 1, **wrong})


@pytest.mark.parametrize("kind", ["euler", "pndm"])
def test_other_schedulers_are_left_as_they_were(kind: str) -> None:
    pipe = tiny.build(kind)
    before = as_found(pipe)
    assert invert(pipe, images(), TEMPLATES, SPEC, steps=1).step == 1
    assert as_found(pipe) == before
