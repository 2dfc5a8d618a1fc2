"""What attacks by gradient share: which pipelines they know, the noise they add, vectors of one's own in a prompt."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from tasks.attacks.denoising import (
    check_pipeline,
    frozen,
    image_draws,
    latents_of,
    losses,
    prediction_draws,
    text_states,
    token_ids,
)
from tests import tiny
from tests.attack_cases import as_found, images, raising


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny.build()


def with_prediction(kind: str) -> Any:
    pipe = tiny.build()
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type=kind)
    return pipe


@pytest.mark.parametrize("scheduler", tiny.SCHEDULERS)
def test_these_are_supported(scheduler: str) -> None:
    check_pipeline(tiny.build(scheduler))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unet": None}, "no unet"),
        ({"vae": None}, "no vae"),
        ({"text_encoder_2": object()}, "two text encoders"),
        ({"text_encoder": SimpleNamespace(config=SimpleNamespace(model_type="t5"))}, "by t5"),
        ({"unet": SimpleNamespace(config=SimpleNamespace(in_channels=9, out_channels=4))}, "more than latents"),
        ({"scheduler": FlowMatchEulerDiscreteScheduler()}, "flow matching"),
        ({"scheduler": DDIMScheduler(prediction_type="sample")}, "'sample'"),
        ({"tokenizer": "ab"}, "2 tokens, the text encoder 15"),
    ],
)
def test_others_are_refused_and_say_why(pipe: Any, change: dict[str, Any], said: str) -> None:
    parts = {name: getattr(pipe, name) for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler")}
    with pytest.raises(ValueError, match=said):
        check_pipeline(SimpleNamespace(**{**parts, **change}))


@pytest.mark.parametrize("scheduler", ["ddim", "pndm"])
def test_noise_is_added_as_the_scheduler_adds_it(scheduler: str) -> None:
    pipe = tiny.build(scheduler)
    latents = latents_of(pipe, images(3))
    draws = image_draws(pipe, latents, 6, 1)
    assert sorted(draws.timesteps.tolist()) != draws.timesteps.tolist() or len(set(draws.timesteps.tolist())) > 1
    matched = 0
    for noisy, step, noise in zip(draws.noisy, draws.timesteps, draws.answers, strict=True):
        expected = pipe.scheduler.add_noise(latents, noise.expand_as(latents), step.expand(3))
        matched += any(torch.allclose(noisy, one, atol=1e-5) for one in expected)
    assert matched == 6


def test_velocity_is_the_schedulers() -> None:
    pipe = with_prediction("v_prediction")
    latents = latents_of(pipe, images(1))
    velocity = image_draws(pipe, latents, 4, 1)
    noise = image_draws(with_prediction("epsilon"), latents, 4, 1).answers
    expected = pipe.scheduler.get_velocity(latents.expand(4, -1, -1, -1), noise, velocity.timesteps)
    torch.testing.assert_close(velocity.answers, expected)


def test_every_image_is_drawn_before_one_is_drawn_again(pipe: Any) -> None:
    latents = torch.arange(4.0)[:, None, None, None].expand(4, 4, 8, 8)
    draws = image_draws(pipe, latents, 8, 0)
    share = pipe.scheduler.alphas_cumprod[draws.timesteps][:, None, None, None]
    clean = (draws.noisy - (1 - share).sqrt() * draws.answers) / share.sqrt()
    assert sorted(clean.mean((1, 2, 3)).round().int().tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_draws_are_the_same_for_the_same_seed_only(pipe: Any) -> None:
    latents = latents_of(pipe, images(2))
    one, same, other = (image_draws(pipe, latents, 4, *seed) for seed in ((0, 1), (0, 1), (0, 2)))
    assert torch.equal(one.noisy, same.noisy)
    assert torch.equal(one.timesteps, same.timesteps)
    assert not torch.equal(one.noisy, other.noisy)


def test_predictions_as_answers_leave_no_loss_for_their_own_prompt(pipe: Any) -> None:
    draws = prediction_draws(pipe, latents_of(pipe, images(2)), "a fox", 3, 0)
    for prompt, none in (("a fox", True), ("the rose", False)):
        states = text_states(pipe, token_ids(pipe, [prompt]).expand(3, -1))
        with torch.no_grad():
            assert (float(losses(pipe, states, draws).mean()) < 1e-12) == none


def test_vectors_of_the_vocabulary_are_its_tokens(pipe: Any) -> None:
    """A token's own vector in its place changes nothing; another one does, and gets a gradient."""
    ids = token_ids(pipe, ["a fox"])
    table = pipe.text_encoder.get_input_embeddings().weight.detach()
    placed = ids.clone()
    placed[0, 2] = len(table)
    with torch.no_grad():
        plain, same = text_states(pipe, ids), text_states(pipe, placed, table[ids[0, 2]][None])
    assert torch.equal(plain, same)
    vectors = (table[ids[0, 2]][None] + 1).requires_grad_()
    states = text_states(pipe, placed, vectors)
    assert not torch.allclose(plain, states)
    assert torch.autograd.grad(states.square().sum(), vectors)[0].abs().max() > 0


def test_the_states_are_those_that_the_pipeline_draws_with(pipe: Any) -> None:
    with torch.no_grad():
        ours = text_states(pipe, token_ids(pipe, ["a fox in the style"]))
        theirs = pipe.encode_prompt("a fox in the style", "cpu", 1, do_classifier_free_guidance=False)[0]
    assert torch.equal(ours, theirs)


def test_a_prompt_that_would_be_cut_short_is_refused(pipe: Any) -> None:
    with pytest.raises(ValueError, match="has 9 tokens, but the text encoder reads 8"):
        token_ids(pipe, ["a fox", " ".join(["a"] * 7)])


def test_frozen_is_undone_also_when_the_block_raises(pipe: Any) -> None:
    pipe.unet.conv_in.train()
    pipe.vae.requires_grad_(False)
    before = as_found(pipe)
    free = [parameter for parameter in pipe.unet.parameters() if parameter.requires_grad]
    assert free
    with pytest.raises(KeyError, match="on purpose"):
        raising(frozen(pipe), lambda: not any(p.requires_grad for p in free) and not pipe.unet.conv_in.training)
    assert as_found(pipe) == before


def test_latents_are_scaled_as_the_denoiser_knows_them() -> None:
    pipe = tiny.build()
    plain = latents_of(pipe, images())
    pipe.vae.register_to_config(scaling_factor=0.5)
    torch.testing.assert_close(latents_of(pipe, images()), plain / 2)


def test_no_image_is_refused(pipe: Any) -> None:
    with pytest.raises(ValueError, match="no images"):
        latents_of(pipe, [])


def test_hooks_go_also_when_the_encoder_raises(pipe: Any) -> None:
    before = tiny.hooks(pipe)
    with pytest.raises(ValueError, match="length"):
        text_states(pipe, torch.zeros(1, 50, dtype=torch.long))
    assert tiny.hooks(pipe) == before
