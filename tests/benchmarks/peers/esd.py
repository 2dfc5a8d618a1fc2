"""ESD-x: cross-attention fine-tuned until the model draws the concept as it would have drawn its opposite.

After Gandikota, Materzynska, Fiotto-Kaufman, Bau, "Erasing Concepts from Diffusion Models" (ICCV 2023). The student
starts as the frozen model; in each iteration

    x_t     is what the student itself makes of noise under the concept's prompt, by DDIM down to a random step
    target  = eps(x_t) - eta (eps(x_t, c) - eps(x_t))       of the frozen model, eps(x_t) under the empty prompt
    loss    = mean (student's eps(x_t, c) - target)^2

and Adam moves all parameters of cross-attention (the paper's ESD-x), no others. Settings says what differs from the
paper's 1,000 iterations of one prompt on Stable Diffusion: the model here is small, and one core has a minute or two.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler

from tasks.concepts.concept import Concept
from tests.benchmarks.peers.changes import Change
from tests.benchmarks.peers.wording import embed

CROSS_ATTENTION = ".attn2."


@dataclass(frozen=True)
class Settings:
    """What the fine-tuning depends on, besides the prompts; docs/results.md says what was tried."""

    iterations: int = 100
    learning_rate: float = 1e-4
    eta: float = 1.0  # negative guidance
    guidance: float = 3.0  # of the student's own denoising
    steps: int = 10  # of the student's own denoising, had it run to the end
    batch: int = 2  # noises an iteration, at one timestep
    seed: int = 0


@dataclass(frozen=True)
class Tuned:
    """The fine-tuned parameters, and the loss of each iteration."""

    change: Change
    losses: tuple[float, ...]


def esd(pipe: Any, texts: Sequence[str], settings: Settings) -> Tuned:
    """Fine-tune a copy of the pipeline's UNet against prompts of the concept, drawn at random; the pipeline stays."""
    generator = torch.Generator("cpu").manual_seed(settings.seed)
    student = trainable(pipe.unet)
    learning = {name: p for name, p in student.named_parameters() if p.requires_grad}
    optimizer = torch.optim.Adam(learning.values(), lr=settings.learning_rate)
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(settings.steps)
    said, empty = embed(pipe, texts), embed(pipe, [""] * settings.batch)
    losses = []
    for _ in range(settings.iterations):
        prompt = said[torch.randint(len(said), (settings.batch,), generator=generator)]
        calls = int(torch.randint(settings.steps, (), generator=generator))
        x = noise(pipe, settings.batch, generator)
        x = denoise(student, scheduler, x, prompt, empty, settings.guidance, calls)
        t = scheduler.timesteps[calls]
        loss = torch.nn.functional.mse_loss(
            student(x, t, prompt).sample, opposite(pipe.unet, x, t, prompt, empty, settings.eta)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return Tuned(Change({f"unet.{name}": p.detach() for name, p in learning.items()}), tuple(losses))


def prompts(concept: Concept, words: str) -> list[str]:
    """What is to be unlearnt: the concept's words alone, as in the paper, where they begin all its target prompts;
    else those prompts, for a word that only ever says how something looks draws nothing by itself.
    """
    texts = list(dict.fromkeys(prompt.text for prompt in concept.target.prompts))
    return [words] if all(text.startswith(words) for text in texts) else texts


def trainable(unet: Any) -> Any:
    """A copy of the UNet, of which cross-attention alone learns; without dropout, as it draws."""
    student = copy.deepcopy(unet).eval()
    for name, p in student.named_parameters():
        p.requires_grad_(CROSS_ATTENTION in name)
    return student


def noise(pipe: Any, count: int, generator: torch.Generator) -> torch.Tensor:
    """Latents to begin with [noise, channel, height, width]."""
    config = pipe.unet.config
    x = torch.randn((count, config.in_channels, config.sample_size, config.sample_size), generator=generator)
    return x.to(pipe.unet.device, pipe.unet.dtype)


@torch.no_grad()
def denoise(
    unet: Any, scheduler: DDIMScheduler, x: torch.Tensor, prompt: torch.Tensor, empty: torch.Tensor, guidance: float,
    calls: int,
) -> torch.Tensor:  # fmt: skip
    """The first `calls` steps of DDIM, with classifier-free guidance."""
    both = torch.cat([empty, prompt])
    for t in scheduler.timesteps[:calls]:
        without, given = unet(torch.cat([x, x]), t, both).sample.chunk(2)
        x = scheduler.step(without + guidance * (given - without), t, x).prev_sample
    return x


@torch.no_grad()
def opposite(
    frozen: Any, x: torch.Tensor, t: torch.Tensor, prompt: torch.Tensor, empty: torch.Tensor, eta: float
) -> torch.Tensor:
    """What the student shall predict under the prompt: away from it, by as much as the frozen model would go to it."""
    without, given = frozen(torch.cat([x, x]), t, torch.cat([empty, prompt])).sample.chunk(2)
    return without - eta * (given - without)
