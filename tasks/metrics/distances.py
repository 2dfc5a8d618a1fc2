"""Distances between what two models draw, by the features of a named extractor.

FID (Heusel et al., 2017) and KID (Binkowski et al., 2018) by torchmetrics; CMMD (Jayasumana et al., "Rethinking FID",
2024) here, torchmetrics has none. With another extractor than Inception v3 (FID, KID) or CLIP ViT-L/14@336 (CMMD) the
numbers are comparable among themselves alone; the extractor's name and hash go with them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from tasks.metrics.features import Extractor, unit

Features = NDArray[np.float64]
BANDWIDTH = 10.0  # of CMMD's Gaussian kernel, on features of length 1
CMMD_SCALE = 1000.0


class Distance:
    """One of "fid", "kid" and "cmmd" over an extractor. Raises ValueError for another name."""

    def __init__(self, name: str, folder: Path) -> None:
        ways: dict[str, Callable[[Features, Features], float]] = {"fid": fid, "kid": kid, "cmmd": cmmd}
        if name not in ways:
            raise ValueError(f"distance {name!r} is unknown; choose one of {', '.join(ways)}")
        self.distance = ways[name]
        self.extractor = Extractor(folder)
        self.about: Mapping[str, Any] = {"metric": name, **self.extractor.about}

    def features(self, images: Sequence[Image.Image]) -> Features:
        """[image, feature]."""
        return self.extractor(images)


def fid(one: Features, other: Features) -> float:
    """The Frechet distance of two Gaussians with the sets' means and covariances; needs two images a set at least."""
    return _torchmetric(FrechetInceptionDistance(feature=_Given(one.shape[1])).set_dtype(torch.float64), one, other)


def kid(one: Features, other: Features) -> float:
    """The squared maximum mean discrepancy with the cubic kernel, unbiased, over the whole sets at once."""
    size = min(len(one), len(other))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save all")  # they are kept anyway
        metric = KernelInceptionDistance(feature=_Given(one.shape[1]), subsets=1, subset_size=size)
    return _torchmetric(metric, one, other)


def cmmd(one: Features, other: Features) -> float:
    """1000 times the squared maximum mean discrepancy with a Gaussian kernel, on features scaled to length 1."""
    x, y = unit(one), unit(other)

    def mean(a: Features, b: Features) -> float:
        squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
        return float(np.exp(-squared / (2 * BANDWIDTH**2)).mean())

    return CMMD_SCALE * (mean(x, x) + mean(y, y) - 2 * mean(x, y))


class _Given(torch.nn.Module):
    """Stands where torchmetrics expects a network: the features are there already."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.num_features = size

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def _torchmetric(metric: Any, one: Features, other: Features) -> float:
    metric.update(torch.from_numpy(one), real=True)
    metric.update(torch.from_numpy(other), real=False)
    found = metric.compute()
    return float(found[0] if isinstance(found, tuple) else found)
