"""Small tier stores and what goes into them, for the tests of storage.tiers."""

from __future__ import annotations

from typing import Any

import numpy as np

from storage.roots import RootLike
from storage.tier_arrays import Tokens
from storage.tiers import TierStore
from tasks.diffusion.spec import TierKind, TierSpec
from tests.activation_cases import BRANCHES, PROFILE, PROMPTS, SITES, TIMESTEPS

STEPS = [0, 2]
TOKENS = {SITES[0].name: Tokens(6, (2, 3)), SITES[1].name: Tokens(5, None)}


def tier(kind: TierKind, steps: str | None = "0,2") -> TierSpec:
    return TierSpec(kind, tuple(site.name for site in SITES), steps)


def plan(store: TierStore, **changes: Any) -> None:
    parts = {"prompts": PROMPTS, "sites": SITES, "tokens": TOKENS, "timesteps": TIMESTEPS, "branches": BRANCHES,
             "attributes": PROFILE}  # fmt: skip
    store.plan(**{**parts, **changes})


def values(kind: TierKind, seed: int = 0, steps: int = len(STEPS)) -> dict[str, dict[str, np.ndarray]]:
    """One prompt's values of every site."""
    random, out = np.random.default_rng(seed), {}
    for site in SITES:
        shape = (steps, len(BRANCHES), TOKENS[site.name].count, site.width)
        x = random.normal(0, 3, shape).astype("f2")
        if kind == "raw":
            out[site.name] = {"activation": x}
        else:
            f4 = x.astype("f4")
            out[site.name] = {"mean": f4.mean(2), "absmax": abs(f4).max(2), "positive": (f4 > 0).mean(2, dtype="f4")}
    return out


def planned(root: RootLike, kind: TierKind) -> TierStore:
    """A store of two steps with three pending prompts."""
    store = TierStore(root, "profile", "prompt-set", tier(kind))
    plan(store)
    return store


def observed(root: RootLike, kind: TierKind) -> TierStore:
    """A store of two steps with three complete prompts."""
    store = planned(root, kind)
    for slot in range(len(PROMPTS)):
        store.write(slot, values(kind, slot))
    return store
