"""What the benchmark eval-unlearn is run with in tests: prompts, a metric that keeps the images, a CLIP of no worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import demo

TARGET = ["a fox", "a fox in the style of blob", "a fox on a red background"]
RETAIN = ["a cat", "a dog in the style of noto"]


class Gallery:
    """A metric that keeps what the runner hands it; its prompts come from the benchmark's own loader, two a batch."""

    images: list[np.ndarray]
    prompts: list[str]

    def __init__(self, **config: Any) -> None:
        self.config = config
        Gallery.images, Gallery.prompts = [], []

    def load_dataset(self) -> Any:
        from eval_unlearn.datasets import load_ua_ira_csv

        return load_ua_ira_csv(**self.config, batch_size=2)

    def update(self, images: Sequence[Image.Image], prompts: Sequence[str], metadata: Any) -> None:
        Gallery.images += pixels(images)
        Gallery.prompts += prompts

    def compute(self) -> Any:
        from eval_unlearn.types import MetricResult

        return MetricResult(name="gallery", value=float(len(Gallery.images)))


def pixels(images: Sequence[Image.Image]) -> list[np.ndarray]:
    return [np.asarray(image.convert("RGB")) for image in images]


def same(one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> list[bool]:
    return [np.array_equal(*pair) for pair in zip(one, other, strict=True)]


def prompts_files(folder: Path) -> dict[str, str]:
    """Write the prompts as the benchmark's CSV files, and return its config's keys for them."""
    paths = {}
    for part, prompts in (("target", TARGET), ("retain", RETAIN)):
        path = folder / f"{part}.csv"
        path.write_text("\n".join(["prompt", *prompts]) + "\n", "utf-8")
        paths[f"{part}_prompts_path"] = str(path)
    return paths


def stand_in_clip(folder: Path) -> None:
    """A CLIP of random weights, which reads the bundled model's words: its judgements mean nothing."""
    from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor

    small = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    words = AutoTokenizer.from_pretrained(demo.MODEL / "tokenizer")
    text = dict(vocab_size=len(words), max_position_embeddings=16, bos_token_id=0, eos_token_id=1, **small)
    config = CLIPConfig(text_config=text, vision_config=dict(image_size=32, patch_size=16, **small), projection_dim=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32), words).save_pretrained(folder)
