"""Loads pipelines and draws with them: one seeded generator a prompt, the same image in every batch."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from PIL import Image

from tasks.concepts.prompts import Prompt
from tasks.diffusion.sites import denoiser
from tasks.diffusion.sources import fingerprint, resolve
from tasks.diffusion.spec import CaptureSpec, ModelSpec


def choose_device(wish: str) -> str:
    """The device to run on: the wish, or for "auto" cuda, mps or cpu, in this order. Raises ValueError if absent."""
    if wish.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device {wish} was asked for, but torch finds no CUDA here; use cpu or auto")
    if wish == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device mps was asked for, but torch finds no Apple GPU here; use cpu or auto")
    if wish != "auto":
        return wish
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def load(model: ModelSpec) -> Any:
    """The pipeline of a model, ready on its device; kept for the life of the process, or until its files change.

    Raises ValueError as `resolve` does.
    """
    folder = Path(model.path).expanduser()
    files = fingerprint(folder, model.variant) if folder.is_dir() else None
    return _load(model, files)  # a hub id's revision cannot change


@lru_cache(maxsize=1)
def _load(model: ModelSpec, files: str | None) -> Any:
    if model.offload != "none" and choose_device(model.device) == "cpu":
        raise ValueError(f"offload {model.offload} is for a GPU, and the device is cpu; leave --offload out")
    hush()
    pipe = diffusers.DiffusionPipeline.from_pretrained(
        resolve(model),
        dtype=getattr(torch, model.dtype),
        variant=model.variant,
        use_safetensors=True,
        local_files_only=True,
        safety_checker=None,  # it would black out images in silence and change the evaluation
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return _place(pipe, model)


def _place(pipe: Any, model: ModelSpec) -> Any:
    """The pipeline on its device, or on the host until its parts run."""
    device = choose_device(model.device)
    if model.slicing:
        pipe.enable_attention_slicing()
        pipe.vae.enable_slicing()  # an image at a time; tiling would change images
    if model.offload == "none":
        return pipe.to(device)
    if model.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    else:
        pipe.enable_group_offload(onload_device=torch.device(device), offload_type="leaf_level")
    return pipe


class _Enough(Exception):
    """Ends a pipeline's run after the denoiser calls that are wanted."""


def timesteps(pipe: Any, spec: CaptureSpec) -> list[float]:
    """The scheduler's timestep of every denoiser call, in order; may be longer than `steps` (PNDM: 51 for 50).

    A pipeline decides them as it begins (Flux by the image's size), so it is run as far as its first denoiser call.
    """
    generate(pipe, [Prompt("", 0)], spec, window=1)
    return [float(t) for t in pipe.scheduler.timesteps]


def captured_timesteps(pipe: Any, spec: CaptureSpec) -> list[float]:
    """The timesteps inside the captured window. Raises ValueError when the window is longer than the run."""
    every = timesteps(pipe, spec)
    if spec.window is not None and spec.window > len(every):
        raise ValueError(
            f"window is {spec.window}; the scheduler makes {len(every)} denoiser calls for {spec.steps} steps"
        )
    return every[: spec.window]


def generate(
    pipe: Any, prompts: Sequence[Prompt], spec: CaptureSpec, *, window: int | None = None
) -> list[Image.Image]:
    """Draw one image a prompt, from the prompt's own seed.

    With `window`, denoising stops after that many denoiser calls and nothing is decoded: the list is empty. Raises
    ValueError for a prompt that every text encoder would cut short.
    """
    _check_lengths(pipe, prompts)
    calls = 0

    def stop(module: torch.nn.Module, args: Any, output: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == window:
            raise _Enough  # not every pipeline has a callback that ends its loop

    options: dict[str, Any] = {"height": spec.height, "width": spec.width}
    known = inspect.signature(type(pipe).__call__).parameters
    # PixArt's: the nearest size that it was trained at would be drawn; captions would change where bs4 is installed.
    options |= {name: False for name in ("use_resolution_binning", "clean_caption") if name in known}
    hook = denoiser(pipe).register_forward_hook(stop)
    try:
        output = pipe(
            prompt=[prompt.text for prompt in prompts],
            generator=[torch.Generator("cpu").manual_seed(prompt.seed) for prompt in prompts],
            num_inference_steps=spec.steps,
            guidance_scale=spec.guidance,
            **{key: value for key, value in options.items() if value is not None},
        )
    except _Enough:
        pipe.maybe_free_model_hooks()  # as the pipeline does at its end
        return []
    finally:
        hook.remove()
    return list(output.images)


def _check_lengths(pipe: Any, prompts: Sequence[Prompt]) -> None:
    """What is cut off is not drawn: a target may lose its concept. No prompt in the message: it may be logged."""
    longest = inspect.signature(type(pipe).__call__).parameters.get("max_sequence_length")  # of T5, by default
    limits = []
    for name, tokenizer in sorted(pipe.components.items()):
        if name.startswith("tokenizer") and tokenizer is not None:
            encoder = getattr(pipe, name.replace("tokenizer", "text_encoder"))
            by_pipeline = [longest.default] if longest and encoder.config.model_type == "t5" else []
            limits.append((tokenizer, min([tokenizer.model_max_length, *by_pipeline])))
    for prompt in prompts:
        lengths = [(len(tokenizer(prompt.text).input_ids), limit) for tokenizer, limit in limits]
        if all(length > limit for length, limit in lengths):
            length, limit = max(lengths, key=lambda one: one[1])
            raise ValueError(
                f"prompt {prompt.name} has {length} tokens, but the text encoder reads {limit}; shorten it"
            )


def hush() -> None:
    """The libraries' loading bars and notices would drown our own progress; their errors still show."""
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
