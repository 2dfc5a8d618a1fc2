"""Features of images by a vision model in a folder: named, hashed, safetensors only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

BATCH = 32


def unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Features [image, feature] at length 1."""
    scaled: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


class Extractor:
    """Any transformers vision model, such as DINOv2, CLIP's vision model or a classifier without its head.

    Pictures go through the folder's own image processor; where there is none they are scaled to -1..1 at the size that
    the pipeline drew. Raises ValueError when the folder holds no such model.
    """

    def __init__(self, folder: Path) -> None:
        weights = sorted(folder.glob("*.safetensors"))
        if not weights or not (folder / "config.json").is_file():
            raise ValueError(f"no feature extractor at {folder}: expected a folder with config.json and safetensors")
        digest = hashlib.sha256()
        for path in weights:
            digest.update(path.read_bytes())
        self.model = AutoModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
        ).eval()
        self.processor = None
        if (folder / "preprocessor_config.json").is_file():
            self.processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        self.about = {"extractor": folder.name, "sha256": digest.hexdigest(), "class": type(self.model).__name__}

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> NDArray[np.float64]:
        """[image, feature]: the model's pooled output, or the mean over its tokens where it pools nothing."""
        rows = []
        for start in range(0, len(images), BATCH):
            pixels = self._pixels([image.convert("RGB") for image in images[start : start + BATCH]])
            if hasattr(self.model, "get_image_features"):
                found = self.model.get_image_features(pixel_values=pixels)
                pooled = getattr(found, "pooler_output", found)
            else:
                output = self.model(pixel_values=pixels)
                pooled = getattr(output, "pooler_output", None)
                pooled = output.last_hidden_state.mean(1) if pooled is None else pooled
            rows.append(pooled.flatten(1).double().numpy())
        return np.concatenate(rows)

    def _pixels(self, images: Sequence[Image.Image]) -> Any:
        if self.processor is not None:
            return self.processor(list(images), return_tensors="pt").pixel_values
        stacked = np.stack([np.asarray(image, np.float32) for image in images])
        return torch.from_numpy(stacked).permute(0, 3, 1, 2) / 127.5 - 1
