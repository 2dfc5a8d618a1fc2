"""The demo's denoiser and text encoder, trained together on captioned latents.

Feed-forward neurons drop out, so that no picture hangs on a few of them, and each pays a small penalty for the time
that it is active. Training has two phases (docs/decisions/002-bundled-model.md): draw; then ground what the text does
in the feed-forwards (without them, the prediction shall not depend on the caption).
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel

from demo.training import captions, emoji, shapes


@dataclass(frozen=True)
class Phase:
    """One phase of a training; its learning rate warms up and falls along a cosine of its own."""

    steps: int
    learning_rate: float
    activity_penalty: float  # on how much of its time a feed-forward neuron is active
    leak_batch: int = 0  # pictures that are also predicted with the feed-forwards off


DRAW = Phase(steps=2000, learning_rate=1e-3, activity_penalty=0.01)
GROUND = Phase(steps=1370, learning_rate=5e-4, activity_penalty=0.03, leak_batch=24)


@dataclass(frozen=True)
class Recipe:
    """The settings of one training."""

    phases: tuple[Phase, ...] = (DRAW, GROUND)
    batch: int = 128
    warmup: int = 100  # steps of each phase
    ema: float = 0.998
    min_snr: float = 5.0  # min-SNR weighting (Hang et al., 2023)
    conv_dropout: float = 0.1
    ff_dropout: float = 0.2  # of the feed-forwards' hidden neurons
    leak_weight: float = 3.0
    conv_decay: float = 0.3  # AdamW weight decay of everything but the feed-forwards and the text encoder
    seed: int = 0

    @property
    def steps(self) -> int:
        """Steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def at(self, step: int) -> tuple[Phase, int]:
        """The phase of a step, and the step's number in it."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        raise ValueError(f"the recipe ends {step + 1} steps earlier")


@torch.no_grad()
def encode_all(vae: AutoencoderTiny, pictures: np.ndarray) -> torch.Tensor:
    """Latents of all pictures on all backgrounds [object + 1, style, variant, background, C, h, w].

    The last "object" is none: the backgrounds alone.
    """
    empty = np.zeros_like(pictures[:1])
    grid = np.concatenate([pictures, empty])
    per_background = []
    for background in emoji.BACKGROUNDS:
        flat = torch.from_numpy(emoji.on_background(grid, background)).flatten(0, 2)
        latents = torch.cat([vae.encode(part).latents for part in flat.split(256)])
        per_background.append(latents.unflatten(0, grid.shape[:3]))
    return torch.stack(per_background, 3) * vae.config.scaling_factor


def draw_batch(latents: torch.Tensor, rng: np.random.Generator, size: int) -> tuple[torch.Tensor, list[str]]:
    """Random latents [size, C, h, w] with their captions."""
    nouns: list[str | None] = [*emoji.OBJECTS, None]
    backgrounds = list(emoji.BACKGROUNDS)
    none = len(nouns) - 1
    index = np.stack([rng.integers(n, size=size) for n in (none, *latents.shape[1:4])], 1)
    index[rng.random(size) < captions.EMPTY_SCENE, 0] = none
    texts = [captions.draw(rng, nouns[o], emoji.STYLES[s], backgrounds[b]) for o, s, _, b in index]
    o, s, v, b = torch.from_numpy(index).T
    return latents[o, s, v, b], texts


@contextmanager
def feed_forward_activity(unet: UNet2DConditionModel) -> Iterator[list[torch.Tensor]]:
    """Collects, in each forward pass, the lifetime activity of every feed-forward's neurons, averaged.

    A neuron's lifetime activity is its mean absolute value over its root mean square, both over all tokens of the
    batch: 1 when it is always on, near 0 when it is seldom on, and for few inputs (lifetime sparseness: Willmore and
    Tolhurst, 2001). It does not depend on scale, so that no neuron can pay with a smaller weight.
    """
    ratios: list[torch.Tensor] = []

    def observe(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        x = args[0].flatten(0, -2)
        ratios.append((x.abs().mean(0) / (x.square().mean(0) + 1e-12).sqrt()).mean())

    hooks = [m.register_forward_pre_hook(observe) for n, m in unet.named_modules() if n.endswith("ff.net.2")]
    try:
        yield ratios
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def feed_forwards_off(unet: UNet2DConditionModel) -> Iterator[None]:
    """Every feed-forward's output is its bias alone, as if all its neurons were pruned."""

    def silence(module: torch.nn.Linear, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return module.bias.expand_as(output)

    hooks = [m.register_forward_hook(silence) for n, m in unet.named_modules() if n.endswith("ff.net.2")]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def parameter_groups(unet: torch.nn.Module, text_encoder: torch.nn.Module, decay: float) -> list[dict]:
    """AdamW's groups: the feed-forwards, the text encoder and vectors without decay, all other matrices with it."""
    named = list(unet.named_parameters())
    free = [p for n, p in named if ".ff." in n or p.ndim < 2] + list(text_encoder.parameters())
    held = [p for n, p in named if ".ff." not in n and p.ndim >= 2]
    return [{"params": free, "weight_decay": 0.0}, {"params": held, "weight_decay": decay}]


class Training:
    """A resumable training: everything that changes is saved to one checkpoint file."""

    def __init__(
        self, vae: AutoencoderTiny, pictures: np.ndarray, recipe: Recipe, folder: Path, device: str = "cpu"
    ) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.folder, self.device = recipe, folder, device
        self.latents = encode_all(vae, pictures).to(device)
        self.tokenizer = shapes.build_tokenizer()
        self.unet = shapes.build_unet(self.latents.shape[-3], recipe.conv_dropout, recipe.ff_dropout).to(device)
        self.text_encoder = shapes.build_text_encoder(len(self.tokenizer)).to(device)
        self.ema = copy.deepcopy(torch.nn.ModuleList([self.unet, self.text_encoder])).requires_grad_(False).eval()
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.unet, self.text_encoder, recipe.conv_decay), betas=(0.9, 0.99)
        )
        self.alphas = shapes.build_scheduler().alphas_cumprod.to(device)
        self.step = 0
        if self.checkpoint.exists():
            self.load()

    @property
    def checkpoint(self) -> Path:
        """The file that holds the whole state."""
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write the state, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {key: getattr(self, key).state_dict() for key in ("unet", "text_encoder", "ema", "optimizer")}
        torch.save({**state, "step": self.step}, self.checkpoint.with_suffix(".partial"))
        self.checkpoint.with_suffix(".partial").replace(self.checkpoint)

    def load(self) -> None:
        """Take the state up again."""
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        for key in ("unet", "text_encoder", "ema", "optimizer"):
            getattr(self, key).load_state_dict(state[key])
        self.step = state["step"]

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        """Text embeddings [batch, MAX_TOKENS, WIDTH]."""
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return self.text_encoder(tokens.to(self.device)).last_hidden_state

    def loss(self, phase: Phase, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The min-SNR weighted noise prediction error of one batch, the feed-forwards' activity, and the text's leak.

        The leak (of a phase with a leak batch) is how much a prediction without feed-forwards still depends on the
        text: the mean squared difference between two captions' predictions for the same noisy picture, with the
        feed-forwards off.
        """
        x, texts = draw_batch(self.latents, rng, self.recipe.batch)
        timestep = torch.randint(1000, (len(x),)).to(self.device)  # drawn on the CPU: the same on every device
        noise = torch.randn(x.shape).to(self.device)
        alpha = self.alphas[timestep][:, None, None, None]
        noisy = alpha.sqrt() * x + (1 - alpha).sqrt() * noise
        text = self.encode_text(texts)
        with feed_forward_activity(self.unet) as ratios:
            guess = self.unet(noisy, timestep, text).sample
        snr = (alpha / (1 - alpha)).flatten()
        weight = snr.clamp(max=self.recipe.min_snr) / snr
        error = (weight * (guess - noise).square().mean((1, 2, 3))).mean()
        if not phase.leak_batch:
            return error, torch.stack(ratios).mean(), torch.zeros((), device=self.device)
        part = slice(phase.leak_batch)
        with feed_forwards_off(self.unet):
            texts_of_both = torch.cat([text[part], text[part].roll(1, 0)])
            both = self.unet(torch.cat([noisy[part]] * 2), torch.cat([timestep[part]] * 2), texts_of_both).sample
        own, other = both.chunk(2)
        leak = (weight[part] * (own - other).square().mean((1, 2, 3))).mean()
        return error, torch.stack(ratios).mean(), leak

    def learning_rate(self, phase: Phase, step: int) -> float:
        """Linear warm-up, then a cosine to a hundredth."""
        if step < self.recipe.warmup:
            return phase.learning_rate * (step + 1) / self.recipe.warmup
        share = (step - self.recipe.warmup) / (phase.steps - self.recipe.warmup)
        return phase.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))

    @torch.no_grad()
    def update_ema(self) -> None:
        """Move the averaged weights towards the current ones."""
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        current = [*self.unet.parameters(), *self.text_encoder.parameters()]
        torch._foreach_lerp_(list(self.ema.parameters()), current, 1 - decay)

    def run(self) -> None:
        """Train all phases, saving every 200 steps and at the end of each phase."""
        mean, start = 0.0, time.monotonic()
        while self.step < self.recipe.steps:
            phase, step = self.recipe.at(self.step)
            rng = np.random.default_rng((self.recipe.seed, self.step))
            torch.manual_seed(int(rng.integers(2**62)))
            loss, activity, leak = self.loss(phase, rng)
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(phase, step)
            self.optimizer.zero_grad()
            (loss + phase.activity_penalty * activity + self.recipe.leak_weight * leak).backward()
            torch.nn.utils.clip_grad_norm_([*self.unet.parameters(), *self.text_encoder.parameters()], 1.0)
            self.optimizer.step()
            self.update_ema()
            mean = 0.98 * mean + 0.02 * loss.item() if mean else loss.item()
            if self.step % 50 == 0:
                numbers = f"loss {mean:.4f} activity {activity:.3f} leak {leak:.4f}"
                print(f"step {self.step} {numbers} {time.monotonic() - start:.0f} s", flush=True)
            self.step += 1
            if self.step % 200 == 0 or step + 1 == phase.steps:
                self.save()
