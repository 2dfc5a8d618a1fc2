"""What the tests of the attacks share: images, a state's way through a store, all that must not change."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load, save
from transformers import CLIPTokenizer

from tasks.diffusion.pruned import weights_fingerprint
from tests import tiny

COMPONENTS = ("unet", "vae", "text_encoder")


MERGES = [("f", "o"), ("fo", "x</w>"), ("c", "a"), ("ca", "t</w>"), ("fo", "e</w>")]


def with_pieces() -> Any:
    """The tiny pipeline with CLIP's own kind of tokenizer: words of pieces, of which only some end a word."""
    pipe = tiny.build()
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{one}</w>" for one in letters), *map("".join, MERGES)]
    pipe.tokenizer = CLIPTokenizer({word: i for i, word in enumerate(words)}, MERGES, model_max_length=tiny.MAX_TOKENS)
    table = torch.nn.Embedding(len(words), tiny.WIDTH)
    table.weight.data = torch.randn(table.weight.shape, generator=torch.Generator().manual_seed(0)) / 10
    pipe.text_encoder.set_input_embeddings(table)
    return pipe


def images(count: int = 2, seed: int = 0) -> list[Image.Image]:
    random = np.random.default_rng(seed)
    return [Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)) for _ in range(count)]


def stored(state: Any) -> Any:
    """The state after a way through safetensors and JSON."""
    arrays, values = state.pack()
    return type(state).unpack(load(save(arrays)), json.loads(json.dumps(values)))


def raising(context: AbstractContextManager[Any], check: Callable[[], Any]) -> None:
    """Enter the context, check, and leave it by an error that must come through."""
    with context:
        assert check()
        raise KeyError("on purpose")


def as_found(pipe: Any) -> dict[str, Any]:
    """All of a pipeline that an attack must leave as it was: bits, hooks, modes, and the very objects."""
    models = [getattr(pipe, name) for name in COMPONENTS]
    return {
        "weights": weights_fingerprint(pipe, COMPONENTS),
        "hooks": tiny.hooks(pipe),
        "training": [module.training for model in models for module in model.modules()],
        "gradients": [(id(p), p.requires_grad, p.grad is None) for model in models for p in model.parameters()],
        "tokenizer": (id(pipe.tokenizer), len(pipe.tokenizer), json.dumps(pipe.tokenizer.get_vocab(), sort_keys=True)),
        "config": str(pipe.config),
        "random": torch.random.get_rng_state().tolist(),
    }
