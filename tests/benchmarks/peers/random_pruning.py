"""Pruning without choosing: of each site as many weights as a given mask prunes, at random or the smallest.

What ConceptPrune's choice of weights is worth is the difference to these.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tasks.diffusion.pruned import patched
from tasks.diffusion.sites import linear
from tests.benchmarks.peers.changes import Change

Masks = Mapping[str, np.ndarray]  # {site: bool [out, neuron]}, True = prune


def random_masks(like: Masks, seed: int) -> dict[str, np.ndarray]:
    """As many True in each site as `like` has there, anywhere in it; a site's do not depend on the other sites."""
    out = {}
    for name, mask in like.items():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        out[name] = _at(mask, rng.choice(mask.size, int(mask.sum()), replace=False))
    return out


def smallest_masks(pipe: Any, like: Masks) -> dict[str, np.ndarray]:
    """As many True in each site as `like` has there: the weights of least magnitude, of equal ones the first."""
    out = {}
    for name, mask in like.items():
        magnitude = linear(pipe, name).weight.detach().abs().float().cpu().numpy().ravel()
        out[name] = _at(mask, np.argsort(magnitude, kind="stable")[: int(mask.sum())])
    return out


def zeroed(pipe: Any, masks: Masks) -> Change:
    """The pipeline's weights with the masked ones at zero."""
    return Change({f"{name}.weight": patched(linear(pipe, name).weight, mask) for name, mask in masks.items()})


def _at(like: np.ndarray, flat: np.ndarray) -> np.ndarray:
    mask = np.zeros(like.size, np.bool_)
    mask[flat] = True
    return mask.reshape(like.shape)
