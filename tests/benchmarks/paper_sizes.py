"""Stable Diffusion 1.5 in sizes alone: its 16 ffn sites, random weights, synthetic energies of prompts.

Energies imitate what a capture stores: each neuron has its own level, all drift by 3 % a step, prompts differ by 30 %,
and a concept moves each neuron's norm by 5 %. A (prompt, step, branch) sums to the site's tokens, as the store demands.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np

from storage.activations import ActivationStore
from storage.models import ModelStore
from storage.rankings import RankingStore
from tasks.concepts.prompts import Prompt
from tasks.diffusion.spec import NeuronSite

BRANCHES = ("uncond", "cond")
ROLES = ("reference", "target")


@dataclass(frozen=True)
class Size:
    """Sites that are alike."""

    width: int  # neurons
    rows: int
    tokens: int
    sites: int


@dataclass(frozen=True)
class Scale:
    """What a run measures."""

    sizes: tuple[Size, ...]
    prompts: int = 20  # for each role
    steps: int = 50
    deepest: str = "0.05"  # the largest sparsity that the ranking answers
    sparsity: str = "0.02"  # the one that the reference's way ranks
    t_hat: int = 10

    def names(self) -> dict[str, Size]:
        """The sites, by name."""
        return {f"unet.w{size.width}.n{i}.ff.net.2": size for size in self.sizes for i in range(size.sites)}

    def one_of_each(self, prompts: int | None = None) -> Scale:
        """The same with one site of each size."""
        sizes = tuple(replace(size, sites=1) for size in self.sizes)
        return replace(self, sizes=sizes, prompts=prompts or self.prompts)


PAPER = Scale((Size(1280, 320, 4096, 5), Size(2560, 640, 1024, 5), Size(5120, 1280, 256, 6)))
SMALL = Scale((Size(200, 16, 64, 2), Size(400, 32, 16, 1)), prompts=3, steps=12)


def write_inputs(root: str, scale: Scale) -> None:
    """The weights and the energies of both roles, in stores under a root."""
    sites = [NeuronSite(name, "ffn", size.width, size.rows) for name, size in scale.names().items()]
    weights = {s.name: _random(s.name).standard_normal((s.rows, s.width)).astype(np.float32) for s in sites}
    ModelStore(root, "model").write(weights, sites, {})
    for role in ROLES:
        store = activations(root, role)
        prompts = [Prompt(f"{role} {slot}", slot) for slot in range(scale.prompts)]
        store.plan(prompts, sites, [float(step) for step in range(scale.steps)], BRANCHES, {})
        for slot in range(scale.prompts):
            energies = {name: _energy(name, size, role, slot, scale.steps) for name, size in scale.names().items()}
            store.write(slot, energies, {name: size.tokens for name, size in scale.names().items()})


def activations(root: str, role: str) -> ActivationStore:
    """The energies of a role."""
    return ActivationStore(root, "profile", role)


def rankings(root: str) -> RankingStore:
    """The ranking of the two roles."""
    return RankingStore(root, "profile", *ROLES, model="model", branch="both")


def _energy(name: str, size: Size, role: str, slot: int, steps: int) -> np.ndarray:
    """The energy [step, branch, neuron] of one prompt."""
    random = _random(name)  # the same for every prompt
    norm = np.exp(random.standard_normal(size.width) * 0.5)
    norm = norm * np.exp(random.standard_normal((steps, size.width)) * 0.03).cumprod(0)
    if role == "target":
        norm *= np.exp(_random(f"{name} {role}").standard_normal(size.width) * 0.05)
    jitter = np.exp(_random(f"{name} {role} {slot}").standard_normal((len(BRANCHES), size.width)) * 0.3)
    energy = norm[:, None] ** 2 * jitter
    return (energy * (size.tokens / energy.sum(-1, keepdims=True))).astype(np.float32)


def _random(text: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(text.encode()))
