"""The demo's denoiser and text encoder, trained together on captioned latents.

The shape is Stable Diffusion's (UNet2DConditionModel with GEGLU feed-forwards and cross-attention, CLIPTextModel).
Three choices make concepts live in the feed-forwards, as they do in the large models
(docs/decisions/002-bundled-model.md): convolutions are narrow, carry dropout and decay; several transformer layers
follow each of them; and a small penalty makes each feed-forward neuron active for few inputs. A second phase then
brings what the text does into the feed-forwards: without them, the prediction shall not depend on the caption.
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
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from demo.training import captions, emoji

WIDTH = 128  # text encoder and cross-attention
MAX_TOKENS = 16
CHANNELS = (64, 160)
LAYERS = 3  # transformer layers a block


@dataclass(frozen=True)
class Recipe:
    """The settings of one training."""

    steps: int = 2000  # first phase: learn to draw
    grounding_steps: int = 620  # second phase: bring the text's effect into the feed-forwards
    batch: int = 64
    learning_rate: float = 1e-3
    grounding_rate: float = 5e-4
    grounding_batch: int = 24  # pictures that are also predicted with the feed-forwards off
    grounding_weight: float = 3.0
    warmup: int = 100  # steps
    ema: float = 0.998
    min_snr: float = 5.0  # min-SNR weighting (Hang et al., 2023)
    conv_dropout: float = 0.1
    conv_decay: float = 0.3  # AdamW weight decay of everything but the feed-forwards and the text encoder
    sparsity_penalty: float = 0.01  # on how much of its time a feed-forward neuron is active
    grounding_penalty: float = 0.06  # the same in the second phase
    seed: int = 0


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the captions' words, padded with the end token as CLIP's is."""
    vocabulary = {word: i for i, word in enumerate(["<|startoftext|>", "<|endoftext|>", "<unk>", *captions.words()])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        special_tokens=[("<|startoftext|>", 0), ("<|endoftext|>", 1)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<unk>",
        pad_token="<|endoftext|>",
        model_max_length=MAX_TOKENS,
    )


def build_text_encoder(vocabulary: int) -> CLIPTextModel:
    """An untrained CLIP text encoder of 3 layers."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def build_unet(latent_channels: int, conv_dropout: float) -> UNet2DConditionModel:
    """An untrained UNet: convolutions alone at 8 x 8, convolutions and deep transformers at 4 x 4."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=LAYERS,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        dropout=conv_dropout,
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


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
    """A resumable training: everything that changes is in `state`, saved to one checkpoint file."""

    def __init__(self, vae: AutoencoderTiny, pictures: np.ndarray, recipe: Recipe, folder: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.folder = recipe, folder
        self.latents = encode_all(vae, pictures)
        self.tokenizer = build_tokenizer()
        self.unet = build_unet(self.latents.shape[-3], recipe.conv_dropout)
        self.text_encoder = build_text_encoder(len(self.tokenizer))
        self.ema = copy.deepcopy(torch.nn.ModuleList([self.unet, self.text_encoder])).requires_grad_(False).eval()
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.unet, self.text_encoder, recipe.conv_decay), recipe.learning_rate, betas=(0.9, 0.99)
        )
        self.alphas = build_scheduler().alphas_cumprod
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
        state = torch.load(self.checkpoint, weights_only=True)
        for key in ("unet", "text_encoder", "ema", "optimizer"):
            getattr(self, key).load_state_dict(state[key])
        self.step = state["step"]

    def encode_text(self, texts: list[str]) -> torch.Tensor:
        """Text embeddings [batch, MAX_TOKENS, WIDTH]."""
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return self.text_encoder(tokens).last_hidden_state

    def loss(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The min-SNR weighted noise prediction error of one batch, the feed-forwards' activity, and the text's leak.

        The leak (second phase only) is how much a prediction without feed-forwards still depends on the text: the mean
        squared difference between two captions' predictions for the same noisy picture, with the feed-forwards off.
        """
        x, texts = draw_batch(self.latents, rng, self.recipe.batch)
        timestep = torch.randint(1000, (len(x),))
        noise = torch.randn_like(x)
        alpha = self.alphas[timestep][:, None, None, None]
        noisy = alpha.sqrt() * x + (1 - alpha).sqrt() * noise
        text = self.encode_text(texts)
        with feed_forward_activity(self.unet) as ratios:
            guess = self.unet(noisy, timestep, text).sample
        snr = (alpha / (1 - alpha)).flatten()
        weight = snr.clamp(max=self.recipe.min_snr) / snr
        error = (weight * (guess - noise).square().mean((1, 2, 3))).mean()
        if self.step < self.recipe.steps:
            return error, torch.stack(ratios).mean(), torch.zeros(())
        part = slice(self.recipe.grounding_batch)
        with feed_forwards_off(self.unet):
            own = self.unet(noisy[part], timestep[part], text[part]).sample
            other = self.unet(noisy[part], timestep[part], text[part].roll(1, 0)).sample
        leak = (weight[part] * (own - other).square().mean((1, 2, 3))).mean()
        return error, torch.stack(ratios).mean(), leak

    def learning_rate(self) -> float:
        """Each phase: linear warm-up, then a cosine to a hundredth."""
        step, steps, peak = self.step, self.recipe.steps, self.recipe.learning_rate
        if step >= steps:
            step, steps, peak = step - steps, self.recipe.grounding_steps, self.recipe.grounding_rate
        if step < self.recipe.warmup:
            return peak * (step + 1) / self.recipe.warmup
        share = (step - self.recipe.warmup) / (steps - self.recipe.warmup)
        return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(share, 1))))

    @torch.no_grad()
    def update_ema(self) -> None:
        """Move the averaged weights towards the current ones."""
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        current = [*self.unet.parameters(), *self.text_encoder.parameters()]
        torch._foreach_lerp_(list(self.ema.parameters()), current, 1 - decay)

    def run(self) -> None:
        """Train both phases, saving every 200 steps."""
        mean, start = 0.0, time.monotonic()
        last = self.recipe.steps + self.recipe.grounding_steps
        while self.step < last:
            rng = np.random.default_rng((self.recipe.seed, self.step))
            torch.manual_seed(int(rng.integers(2**62)))
            loss, ratio, leak = self.loss(rng)
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate()
            self.optimizer.zero_grad()
            grounding = self.step >= self.recipe.steps
            penalty = self.recipe.grounding_penalty if grounding else self.recipe.sparsity_penalty
            (loss + penalty * ratio + self.recipe.grounding_weight * leak).backward()
            torch.nn.utils.clip_grad_norm_([*self.unet.parameters(), *self.text_encoder.parameters()], 1.0)
            self.optimizer.step()
            self.update_ema()
            mean = 0.98 * mean + 0.02 * loss.item() if mean else loss.item()
            if self.step % 50 == 0:
                seconds = time.monotonic() - start
                print(
                    f"step {self.step} loss {mean:.4f} activity {ratio:.3f} leak {leak:.4f} {seconds:.0f} s", flush=True
                )
            self.step += 1
            if self.step % 200 == 0 or self.step == last:
                self.save()
