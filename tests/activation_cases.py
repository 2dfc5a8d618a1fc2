"""A small activation store and what goes into it, for the tests of storage.activations."""

from __future__ import annotations

from typing import Any

import numpy as np

from storage.activations import ActivationStore
from storage.places import Place
from storage.roots import RootLike
from tasks.concepts.prompts import Prompt
from tasks.diffusion.spec import NeuronSite

SITES = [NeuronSite("unet.up.0.ff.net.2", "ffn", 7, 3), NeuronSite("unet.down.10.ff.net.2", "ffn", 5, 2)]
PROMPTS = [Prompt("a photo of a fox", 0), Prompt("", 1), Prompt("ein Füchslein / 狐 ..", 2**63 - 1)]
TIMESTEPS = [981, 961, 961]  # PNDM calls the denoiser twice at one timestep
BRANCHES = ["uncond", "cond"]
PROFILE = {"model": {"fingerprint": "f" * 64}, "guidance": 7.5, "sites": ["a key that the store has too"]}
TOKENS = {SITES[0].name: 64, SITES[1].name: 256}


def plan(store: ActivationStore, **changes: Any) -> None:
    parts = {
        "prompts": PROMPTS,
        "sites": SITES,
        "timesteps": TIMESTEPS,
        "branches": BRANCHES,
        "attributes": PROFILE,
    }
    store.plan(**{**parts, **changes})


def energies(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shape = (len(TIMESTEPS), len(BRANCHES))
    return {
        site.name: (random.dirichlet(np.ones(site.width), shape) * TOKENS[site.name]).astype("f4") for site in SITES
    }


def chunk(store: ActivationStore, slot: int) -> Place:
    return store.path / SITES[0].name / "energy" / "c" / str(slot) / "0" / "0" / "0"


def planned(root: RootLike) -> ActivationStore:
    """A store with three pending prompts."""
    store = ActivationStore(root, "profile", "prompt-set")
    plan(store)
    return store


def captured(root: RootLike) -> ActivationStore:
    """A store with three complete prompts."""
    store = planned(root)
    for slot in range(len(PROMPTS)):
        store.write(slot, energies(slot), TOKENS)
    return store
