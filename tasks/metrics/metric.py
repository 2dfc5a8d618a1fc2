"""The interface of metrics: an image's, a pair's, or a whole set's. Each metric is a file that makes one of them.

What a metric is, and by what detector, threshold and labels it judges, is in `about`: it goes with every number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Shot:
    """An image with the prompt that it was drawn from, and the labels that a judge should give it."""

    text: str
    labels: tuple[str, ...]
    image: Image.Image


@dataclass(frozen=True)
class Judgement:
    """One value about one image; a share is made of values that are 0 or 1."""

    index: int  # of the image among those judged
    group: str  # what it is about, such as "object"; "" where there is one thing to judge
    value: float


class ImageMetric(Protocol):
    """Judges every image by itself."""

    @property
    def about(self) -> Mapping[str, Any]:
        """What the numbers depend on, besides the images: JSON values."""

    def judge(self, shots: Sequence[Shot]) -> list[Judgement]:
        """Any number of judgements an image."""


class SetMetric(Protocol):
    """Compares two sets of images by their features."""

    @property
    def about(self) -> Mapping[str, Any]:
        """As of an ImageMetric."""

    def features(self, images: Sequence[Image.Image]) -> NDArray[np.float64]:
        """One row an image: [image, feature]."""

    def distance(self, one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
        """How far two sets of features are from each other."""
