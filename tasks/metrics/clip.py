"""CLIP's judgement: how alike an image and its prompt are, and which of several labels an image is most like.

Similarity is the cosine of both embeddings, as the paper reports it (CLIPScore of Hessel et al., 2021, is 2.5 times
that, without negative values). Accuracy is zero-shot: the label whose words are nearest, of each group (Radford et al.,
2021). CLIP reads 77 tokens: longer prompts are cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoTokenizer

from tasks.metrics.classifier import group_of, hits
from tasks.metrics.features import Extractor, unit
from tasks.metrics.metric import Judgement, Shot

TEMPLATE = "a photo of {}"


class Similarity:
    """The cosine of an image's embedding and its prompt's. Raises ValueError if the folder holds no CLIP model."""

    def __init__(self, folder: Path) -> None:
        self.clip = _Clip(folder)
        self.about: Mapping[str, Any] = {"metric": "clip-similarity", **self.clip.about}

    def judge(self, shots: Sequence[Shot]) -> list[Judgement]:
        """One judgement an image, -1 to 1."""
        images, texts = self.clip.images([shot.image for shot in shots]), self.clip.texts([shot.text for shot in shots])
        return [Judgement(i, "", float(value)) for i, value in enumerate((images * texts).sum(1))]


class Accuracy:
    """Whether an image is nearest to the words of its own label, of each group of labels.

    `words` says each label's, {"artist:monet": "Claude Monet"}; a word goes into TEMPLATE. Raises ValueError if there
    are fewer than two labels to tell apart.
    """

    def __init__(self, folder: Path, words: Mapping[str, str]) -> None:
        if len(words) < 2:
            raise ValueError(f"CLIP accuracy tells labels apart, and there are {len(words)}; use clip-similarity")
        self.clip, self.labels = _Clip(folder), sorted(words)
        self.embedded = self.clip.texts([TEMPLATE.format(words[label]) for label in self.labels])
        said = hashlib.sha256("\n".join(f"{label} {words[label]}" for label in self.labels).encode()).hexdigest()
        self.about: Mapping[str, Any] = {
            "metric": "clip-accuracy", **self.clip.about, "template": TEMPLATE, "labels": len(words),
            "labels_sha256": said,
        }  # fmt: skip

    def judge(self, shots: Sequence[Shot]) -> list[Judgement]:
        """One judgement a label that a prompt asks for, 1 if it is the nearest of its group, else 0."""
        near = self.clip.images([shot.image for shot in shots]) @ self.embedded.T
        groups: dict[str, list[int]] = {}
        for place, label in enumerate(self.labels):
            groups.setdefault(group_of(label), []).append(place)
        seen = [
            {group: self.labels[places[int(row[places].argmax())]] for group, places in groups.items()} for row in near
        ]
        right = hits([shot.labels for shot in shots], seen)
        owners = [i for i, shot in enumerate(shots) for _ in shot.labels]
        return [Judgement(i, group, float(hit)) for i, (group, hit) in zip(owners, right, strict=True)]


class _Clip:
    """A CLIP model's two embeddings, of length 1."""

    def __init__(self, folder: Path) -> None:
        self.extractor = Extractor(folder)
        if not hasattr(self.extractor.model, "get_text_features"):
            raise ValueError(f"{folder} holds a {self.extractor.about['class']}, not a CLIP model; give one's folder")
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.about = self.extractor.about

    def images(self, images: Sequence[Image.Image]) -> NDArray[np.float64]:
        """[image, feature]."""
        return unit(self.extractor(images))

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """[text, feature]."""
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        found = self.extractor.model.get_text_features(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        return unit(getattr(found, "pooler_output", found).double().numpy())
