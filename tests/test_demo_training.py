"""The denoiser's training goes through its phases, and takes them up again where it stopped."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny

import demo
from demo.training import denoiser, emoji

TINY = denoiser.Recipe(
    phases=(
        denoiser.Phase(steps=2, learning_rate=1e-3, activity_penalty=0.01),
        denoiser.Phase(steps=1, learning_rate=5e-4, activity_penalty=0.06, leak_batch=2),
    ),
    batch=4,
    warmup=1,
    ff_dropout=0.15,
)


def test_each_step_belongs_to_a_phase() -> None:
    assert [(TINY.phases.index(phase), step) for phase, step in map(TINY.at, range(TINY.steps))] == [
        (0, 0),
        (0, 1),
        (1, 0),
    ]


@pytest.fixture
def vae() -> AutoencoderTiny:
    return AutoencoderTiny.from_pretrained(Path(demo.MODEL) / "vae", torch_dtype=torch.float32)


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).random((len(emoji.OBJECTS), len(emoji.STYLES), 1, 4, 32, 32), np.float32)


def test_feed_forward_neurons_drop_out(vae: AutoencoderTiny, pictures: np.ndarray, tmp_path: Path) -> None:
    unet = denoiser.Training(vae, pictures, TINY, tmp_path).unet
    assert {module.p for name, module in unet.named_modules() if name.endswith("ff.net.1")} == {0.15}


def test_only_a_phase_with_a_leak_batch_measures_the_leak(
    vae: AutoencoderTiny, pictures: np.ndarray, tmp_path: Path
) -> None:
    training = denoiser.Training(vae, pictures, TINY, tmp_path)
    without, leaking = (training.loss(phase, np.random.default_rng(0))[2] for phase in TINY.phases)
    assert without == 0
    assert leaking > 0
    leaking.backward()  # what the text does outside the feed-forwards is what learns from it
    gradients = {name: p.grad for name, p in training.unet.named_parameters() if p.grad is not None}
    assert any(gradient.abs().max() > 0 for name, gradient in gradients.items() if "attn2" in name)
    assert all(gradient.abs().max() == 0 for name, gradient in gradients.items() if name.endswith("ff.net.2.weight"))


@pytest.mark.slow  # 18 s of training
def test_a_training_that_stopped_ends_as_one_that_did_not(
    vae: AutoencoderTiny, pictures: np.ndarray, tmp_path: Path
) -> None:
    whole = denoiser.Training(vae, pictures, TINY, tmp_path / "whole")
    whole.run()
    denoiser.Training(vae, pictures, replace(TINY, phases=TINY.phases[:1]), tmp_path / "stopped").run()
    again = denoiser.Training(vae, pictures, TINY, tmp_path / "stopped")
    assert again.step == 2
    again.run()
    assert again.step == TINY.steps
    for mine, other in zip(whole.ema.parameters(), again.ema.parameters(), strict=True):
        assert torch.equal(mine, other)
