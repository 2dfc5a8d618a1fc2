"""What attacks by gradient share: latents at a timestep, the text encoder with vectors of one's own, the loss.

For pipelines of a UNet and one CLIP text encoder, as StableDiffusionPipeline; `check_pipeline` says what is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from tasks.attacks.resuming import check_at_least, generator

PARTS = ("unet", "text_encoder", "tokenizer", "vae", "scheduler")
PREDICTIONS = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class Draws:
    """Questions to a denoiser, with the answers that it should give."""

    noisy: torch.Tensor  # [draw, channel, height, width] latents at their timestep
    timesteps: torch.Tensor  # [draw] of the scheduler's training steps
    answers: torch.Tensor  # [draw, channel, height, width] noise or velocity, as the scheduler's prediction_type says


def check_pipeline(pipe: Any) -> None:
    """Raises ValueError where an attack by gradient does not know the pipeline's kind, and says what is missing."""
    kind = type(pipe).__name__
    if missing := [name for name in PARTS if getattr(pipe, name, None) is None]:
        raise ValueError(f"{kind} has no {', '.join(missing)}; attacks by gradient are for UNets with one CLIP encoder")
    if getattr(pipe, "text_encoder_2", None) is not None:
        raise ValueError(f"{kind} has two text encoders; attacks by gradient are for pipelines with one, as SD 1 and 2")
    if pipe.text_encoder.config.model_type != "clip_text_model":
        raise ValueError(f"{kind} reads prompts by {pipe.text_encoder.config.model_type}; only CLIP's is supported")
    if pipe.unet.config.in_channels != pipe.unet.config.out_channels:
        raise ValueError(f"{kind} takes more than latents (inpainting, or an image to change); that is not supported")
    if (rows := pipe.text_encoder.get_input_embeddings().weight.shape[0]) != len(pipe.tokenizer):
        raise ValueError(
            f"the tokenizer has {len(pipe.tokenizer)} tokens, the text encoder {rows}; they must be as many"
        )
    if not hasattr(pipe.scheduler, "alphas_cumprod"):
        raise ValueError(f"{type(pipe.scheduler).__name__} has no alphas_cumprod: flow matching is not supported")
    if (wanted := pipe.scheduler.config.prediction_type) not in PREDICTIONS:
        raise ValueError(f"the scheduler predicts {wanted!r}; supported are {' and '.join(PREDICTIONS)}")


@contextmanager
def frozen(pipe: Any) -> Iterator[None]:
    """The pipeline's models without gradients of their own and in evaluation mode; then as they were."""
    models = [pipe.unet, pipe.text_encoder, pipe.vae]
    parameters = [parameter for model in models for parameter in model.parameters()]
    modules = [module for model in models for module in model.modules()]
    before = [parameter.requires_grad for parameter in parameters], [module.training for module in modules]
    try:
        for model in models:
            model.requires_grad_(False).eval()
        yield
    finally:
        for parameter, wanted in zip(parameters, before[0], strict=True):
            parameter.requires_grad_(wanted)
        for module, mode in zip(modules, before[1], strict=True):
            module.training = mode


@torch.no_grad()
def latents_of(pipe: Any, images: Sequence[Image.Image]) -> torch.Tensor:
    """The images' latents [image, channel, height, width], as the denoiser knows them. Raises ValueError for none."""
    if not images:
        raise ValueError("there are no images to learn from; give at least one that shows the concept")
    pixels = pipe.image_processor.preprocess(list(images)).to(pipe.vae.device, pipe.vae.dtype)
    coded = pipe.vae.encode(pixels)
    latents = coded.latents if hasattr(coded, "latents") else coded.latent_dist.mode()  # a sample would need a seed
    return (latents * pipe.vae.config.scaling_factor).to(pipe.unet.dtype)


def image_draws(pipe: Any, latents: torch.Tensor, count: int, *seed: int) -> Draws:
    """`count` noisy latents of the images at random timesteps, with the noise (or velocity) as the answer.

    The same for the same latents, count and seed. Raises ValueError for a count below 1.
    """
    check_at_least("draws", count, 1)
    random = generator(*seed)
    which = torch.from_numpy(random.permutation(np.resize(np.arange(len(latents)), count)))
    steps = torch.from_numpy(random.integers(0, pipe.scheduler.config.num_train_timesteps, count))
    noise = torch.from_numpy(random.standard_normal((count, *latents.shape[1:]), dtype=np.float32))
    clean, noise = latents[which.to(latents.device)].float(), noise.to(latents.device)
    share = pipe.scheduler.alphas_cumprod[steps.cpu()].float().to(latents.device)[:, None, None, None]
    noisy = share.sqrt() * clean + (1 - share).sqrt() * noise
    velocity = share.sqrt() * noise - (1 - share).sqrt() * clean
    answers = noise if pipe.scheduler.config.prediction_type == "epsilon" else velocity
    return Draws(noisy.to(latents.dtype), steps.to(latents.device), answers)


@torch.no_grad()
def prediction_draws(pipe: Any, latents: torch.Tensor, prompt: str, count: int, *seed: int) -> Draws:
    """`image_draws` with the pipeline's own predictions for `prompt` as the answers: to be taken before the edit."""
    draws = image_draws(pipe, latents, count, *seed)
    states = text_states(pipe, token_ids(pipe, [prompt]).expand(count, -1))
    return Draws(draws.noisy, draws.timesteps, predictions(pipe, states, draws))


def token_ids(pipe: Any, texts: Sequence[str], tokenizer: Any = None) -> torch.Tensor:
    """The texts' tokens [text, position], padded as the pipeline pads them. Raises ValueError for one cut short."""
    tokenizer = tokenizer or pipe.tokenizer
    longest = max(len(tokenizer(text).input_ids) for text in texts)
    if longest > tokenizer.model_max_length:
        raise ValueError(f"a prompt has {longest} tokens, but the text encoder reads {tokenizer.model_max_length}")
    ids = tokenizer(list(texts), padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
    return ids.input_ids.to(pipe.text_encoder.device)


def text_states(pipe: Any, ids: torch.Tensor, vectors: torch.Tensor | None = None) -> torch.Tensor:
    """What the denoiser reads of tokens [text, position]: [text, position, width].

    An id of the vocabulary's size plus i stands for row i of `vectors` [row, width], through which gradients flow.
    """
    encoder = pipe.text_encoder
    table = encoder.get_input_embeddings()
    size = table.weight.shape[0]
    own = ids >= size

    def put(module: torch.nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        if vectors is None:
            return output
        full = output.clone()
        full[own] = vectors.to(output.dtype)[ids[own] - size]
        return full

    masked = getattr(encoder.config, "use_attention_mask", False)
    mask = (ids != pipe.tokenizer.pad_token_id).long() if masked else None
    hook = table.register_forward_hook(put)
    try:
        return encoder(ids.masked_fill(own, 0), attention_mask=mask)[0]
    finally:
        hook.remove()


def predictions(pipe: Any, states: torch.Tensor, draws: Draws) -> torch.Tensor:
    """The denoiser's answers [draw, channel, height, width] in float32, given [draw, position, width] of text."""
    found = pipe.unet(draws.noisy, draws.timesteps, encoder_hidden_states=states.to(draws.noisy.dtype)).sample
    return found.float()


def losses(pipe: Any, states: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Mean squared error of each draw [draw], without guidance."""
    return (predictions(pipe, states, draws) - draws.answers).square().mean((1, 2, 3))
