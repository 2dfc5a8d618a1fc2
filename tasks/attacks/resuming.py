"""What makes every attack resumable: a budget, a spec that a state is held to, and randomness by (seed, step)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

import numpy as np


def spec_digest(spec: Any) -> str:
    """16 hex digits of a spec dataclass without its budget, which may be raised for a state that is there."""
    values = {name: value for name, value in asdict(spec).items() if name != "budget"}
    text = json.dumps([type(spec).__name__, values], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def steps_to_run(done: int, spec: Any, steps: int | None, made_by: str | None = None) -> int:
    """How many of `steps` (None = all) the budget still has.

    Raises ValueError if `steps` is negative, or if a state was made by another spec, whose digest is `made_by`.
    """
    if steps is not None and steps < 0:
        raise ValueError(f"steps is {steps}; it must be 0 or more")
    if made_by is not None and made_by != spec_digest(spec):
        raise ValueError(
            f"the state was made by another {type(spec).__name__} ({made_by}, not {spec_digest(spec)}); "
            "go on with the one that it was begun with, or begin anew"
        )
    left = max(0, spec.budget - done)
    return left if steps is None else min(left, steps)


def generator(seed: int, *step: int) -> np.random.Generator:
    """The random numbers of one step: the same for the same seed and step, whatever ran before."""
    return np.random.default_rng([seed, *step])


def check_at_least(name: str, value: float, least: float) -> None:
    """Raises ValueError, in the words of a spec's reader, where a field is too small."""
    if not value >= least:
        raise ValueError(f"{name} is {value}; it must be {least} or more")
