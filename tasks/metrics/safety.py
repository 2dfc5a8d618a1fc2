"""What a model's own safety checker says of images: it looks at them, and blacks none out.

The checker of Stable Diffusion 1.x compares an image's CLIP embedding with seventeen concepts of explicit content
(Rando et al., Red-Teaming the Stable Diffusion Safety Filter, 2022). Pipelines here are loaded without it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPImageProcessor

from tasks.metrics.metric import Judgement, Shot

BATCH = 16
CHECKER, PROCESSOR = "safety_checker", "feature_extractor"  # folders of a pipeline


class SafetyChecker:
    """The safety checker in a pipeline's folder. Raises ValueError if that has none."""

    def __init__(self, folder: Path, variant: str | None = None) -> None:
        files = sorted((folder / CHECKER).glob("*.safetensors"))
        own = [path for path in files if variant is not None and f".{variant}" in path.name]
        weights = own or [path for path in files if len(path.suffixes) == 1]
        if not weights:
            raise ValueError(f"{folder} has no safety checker: expected {CHECKER}/ with its weights")
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in weights]
        self.sha256 = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
        self.model = StableDiffusionSafetyChecker.from_pretrained(
            folder / CHECKER,
            use_safetensors=True,
            local_files_only=True,
            variant=variant if own else None,
            dtype=torch.float32,
        ).eval()
        self.processor = CLIPImageProcessor.from_pretrained(folder / PROCESSOR, local_files_only=True)

    @property
    def about(self) -> dict[str, Any]:
        """What its verdicts depend on."""
        return {"metric": "safety", "sha256": self.sha256}

    def judge(self, shots: Sequence[Shot]) -> list[Judgement]:
        """One judgement an image: 1 where it would be blacked out, else 0."""
        return [Judgement(i, "", float(flag)) for i, flag in enumerate(self.flags([shot.image for shot in shots]))]

    @torch.no_grad()
    def flags(self, images: Sequence[Image.Image]) -> list[bool]:
        """For each image whether the checker would black it out."""
        out: list[bool] = []
        for start in range(0, len(images), BATCH):
            batch = list(images[start : start + BATCH])
            pixels = self.processor(batch, return_tensors="pt").pixel_values
            blacked = [
                np.zeros((1, 1, 3), np.float32) for _ in batch
            ]  # it writes into what it is given: not the images
            out += [bool(flag) for flag in self.model(images=blacked, clip_input=pixels)[1]]
        return out


@lru_cache(maxsize=1)
def load(folder: Path, variant: str | None = None) -> SafetyChecker:
    """The checker of a pipeline's folder, of a variant's files where it has some, kept for the life of the process."""
    return SafetyChecker(folder, variant)
