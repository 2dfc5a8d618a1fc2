"""Accuracy by an image classifier: what a judge sees in an image against what the prompt asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoModelForImageClassification

from tasks.metrics.metric import Judgement, Shot

BATCH = 64


class Classifier:
    """A transformers image-classification model of safetensors in a local folder.

    Labels may come in groups, "object:fox" and "style:noto": each group is judged by itself. Pictures are scaled to
    -1..1 at the size that the pipeline drew. Raises ValueError when the folder holds no such model.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "model.safetensors").is_file():
            raise ValueError(f"no judge at {folder}: expected a folder with config.json and model.safetensors")
        self.name = folder.name
        self.sha256 = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        self.model = AutoModelForImageClassification.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
        ).eval()
        self.groups: dict[str, list[int]] = {}
        for index, label in sorted(self.model.config.id2label.items()):
            self.groups.setdefault(group_of(label), []).append(index)

    @property
    def about(self) -> dict[str, Any]:
        """What its judgements depend on."""
        named = "\n".join(str(label) for _, label in sorted(self.model.config.id2label.items()))
        return {
            "metric": "classifier", "judge": self.name, "sha256": self.sha256,
            "labels": len(self.model.config.id2label), "labels_sha256": hashlib.sha256(named.encode()).hexdigest(),
        }  # fmt: skip

    def judge(self, shots: Sequence[Shot]) -> list[Judgement]:
        """One judgement a label that a prompt asks for: 1 if it is the likeliest of its group, else 0."""
        right = hits([shot.labels for shot in shots], self.labels([shot.image for shot in shots]))
        owners = [i for i, shot in enumerate(shots) for _ in shot.labels]
        return [Judgement(i, group, float(hit)) for i, (group, hit) in zip(owners, right, strict=True)]

    @torch.no_grad()
    def labels(self, images: Sequence[Image.Image]) -> list[dict[str, str]]:
        """For every image the likeliest label of each group: {"object": "object:fox", "style": "style:noto"}."""
        out = []
        for start in range(0, len(images), BATCH):
            pixels = np.stack([np.asarray(image.convert("RGB"), np.float32) for image in images[start : start + BATCH]])
            x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
            logits = self.model(x).logits
            best = {group: logits[:, index].argmax(1) for group, index in self.groups.items()}
            for i in range(len(x)):
                out.append({g: self.model.config.id2label[index[int(best[g][i])]] for g, index in self.groups.items()})
        return out


@lru_cache(maxsize=2)
def load(folder: Path) -> Classifier:
    """The judge in a folder, kept for the life of the process."""
    return Classifier(folder)


def group_of(label: str) -> str:
    """The group of a label: what stands before the colon, or nothing.

    >>> group_of("object:fox"), group_of("tench")
    ('object', '')
    """
    return label.rpartition(":")[0]


def hits(expected: Iterable[Sequence[str]], seen: Iterable[dict[str, str]]) -> list[tuple[str, bool]]:
    """One (group, right?) for every expected label of every image.

    >>> hits([["object:fox", "style:noto"]], [{"object": "object:fox", "style": "style:blob"}])
    [('object', True), ('style', False)]
    """
    return [
        (group_of(label), found.get(group_of(label)) == label)
        for labels, found in zip(expected, seen, strict=True)
        for label in labels
    ]
