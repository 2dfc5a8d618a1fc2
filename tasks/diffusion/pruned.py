"""Patches a loaded pipeline: under `with` from a mask, or for good from a delta."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from tasks.diffusion.sites import linear
from tasks.diffusion.spec import NeuronSite


def weights_fingerprint(pipe: Any, components: Iterable[str]) -> str:
    """sha256 (hex) of every parameter and buffer of the named components: names, shapes and float32 values.

    The values do not depend on the dtype that a model was widened to when it was loaded.
    """
    digest = hashlib.sha256()
    for component in sorted(components):
        for name, tensor in sorted(getattr(pipe, component).state_dict().items()):
            digest.update(f"{component}.{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()


def check_base(pipe: Any, expected: str, components: Iterable[str]) -> None:
    """Raises ValueError when the pipeline's weights are not the ones that an edit was made for."""
    components = sorted(components)
    if missing := [name for name in components if getattr(pipe, name, None) is None]:
        raise ValueError(
            f"this pipeline has no {', '.join(missing)}, which the edit was made for: another model; load the base "
            "model that the manifest names"
        )
    got = weights_fingerprint(pipe, components)
    if got != expected:
        raise ValueError(
            f"this pipeline's weights ({got[:12]}) are not those that the edit was made for ({expected[:12]}): another "
            "model, another precision, or already patched; load the base model that the manifest names"
        )


def patched(weight: torch.Tensor, mask: np.ndarray) -> torch.Tensor:
    """A copy of `weight` [out, neuron] that is zero where `mask` is True. Raises ValueError when the shapes differ."""
    if tuple(weight.shape) != mask.shape:
        raise ValueError(f"mask of shape {mask.shape} for a weight of shape {tuple(weight.shape)}: another model")
    return weight.detach().masked_fill(torch.tensor(mask, dtype=torch.bool, device=weight.device), 0)


class Swap:
    """The weights of a pipeline's Linears in place of the base's, which are kept and come back bit for bit."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._base: dict[str, torch.Tensor] = {}
        self._now: dict[str, torch.Tensor] = {}

    def to(self, masks: Mapping[str, np.ndarray]) -> None:
        """Put the base's weights in place, with the masked ones at zero: {site: bool [out, neuron]}, True = prune.

        Raises ValueError if a mask fits no Linear; nothing is changed then.
        """
        weights = {name: linear(self._pipe, name).weight for name in {**self._base, **masks}}
        base = {name: self._base.get(name, weight.data) for name, weight in weights.items()}
        now = {name: patched(base[name], masks[name]) for name in masks}
        self._put(base | now)
        self._base = {name: base[name] for name in masks}  # of the others the base is in place again
        self._now = now

    @contextmanager
    def base(self) -> Iterator[None]:
        """The base's own weights while the block runs."""
        try:
            self._put(self._base)
            yield
        finally:
            self._put(self._now)

    def _put(self, data: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in data.items():
            linear(self._pipe, name).weight.data = tensor


@contextmanager
def pruned(pipe: Any, masks: Mapping[str, np.ndarray], base: str | None = None) -> Iterator[Any]:
    """The pipeline with its masked weights at zero while the block runs; then the exact bits as before.

    `masks` maps site names to bool [out, neuron], True = prune. With `base`, the fingerprint from a manifest
    (model.weights), a pipeline with other weights is refused by ValueError.
    """
    components = {name.partition(".")[0] for name in masks}
    if base is not None:
        check_base(pipe, base, components)
    swap = Swap(pipe)
    try:
        swap.to(masks)
        yield pipe
    finally:
        swap.to({})


@torch.no_grad()
def patch(pipe: Any, masks: Mapping[str, np.ndarray], base: str) -> None:
    """Zero the masked weights of the pipeline for good. Raises ValueError if its weights are not `base`'s."""
    check_base(pipe, base, {name.partition(".")[0] for name in masks})
    weights = {name: linear(pipe, name).weight for name in masks}
    replacements = {name: patched(weight, masks[name]) for name, weight in weights.items()}
    for name, weight in weights.items():
        weight.copy_(replacements[name])


def site_weights(pipe: Any, sites: Iterable[NeuronSite]) -> dict[str, np.ndarray]:
    """Each site's weight [out, neuron] on the host, in the model's dtype (bfloat16 as its uint16 bits)."""
    out = {}
    for site in sites:
        weight = linear(pipe, site.name).weight.detach().cpu().contiguous()
        bits = weight.view(torch.uint16) if weight.dtype == torch.bfloat16 else weight
        out[site.name] = bits.numpy()
    return out


@contextmanager
def replaced(pipe: Any, weights: Mapping[str, np.ndarray]) -> Iterator[Any]:
    """The pipeline with other weights {site: float [out, in]} while the block runs; then the exact bits as before.

    Raises ValueError if one fits no Linear; nothing is changed then.
    """
    before = {name: linear(pipe, name).weight.data for name in weights}
    for name, weight in weights.items():
        if weight.shape != tuple(before[name].shape):
            raise ValueError(f"a weight of shape {weight.shape} for {name} of shape {tuple(before[name].shape)}")
    try:
        for name, weight in weights.items():
            linear(pipe, name).weight.data = torch.tensor(weight, dtype=before[name].dtype, device=before[name].device)
        yield pipe
    finally:
        for name, tensor in before.items():
            linear(pipe, name).weight.data = tensor
