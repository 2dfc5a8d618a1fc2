"""The denoiser's training goes through its phases, and takes them up again where it stopped."""

from pathlib import Path

import numpy as np
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


def test_a_training_drops_feed_forward_neurons_and_is_taken_up_again(tmp_path: Path) -> None:
    vae = AutoencoderTiny.from_pretrained(Path(demo.MODEL) / "vae", torch_dtype=torch.float32)
    pictures = np.random.default_rng(0).random((len(emoji.OBJECTS), len(emoji.STYLES), 1, 4, 32, 32), np.float32)
    training = denoiser.Training(vae, pictures, TINY, tmp_path)
    training.run()
    dropout = {module.p for name, module in training.unet.named_modules() if name.endswith("ff.net.1")}
    again = denoiser.Training(vae, pictures, TINY, tmp_path)

    assert dropout == {0.15}
    assert again.step == TINY.steps
    for mine, other in zip(training.unet.parameters(), again.unet.parameters(), strict=True):
        assert torch.equal(mine, other)
