"""Evaluation protocols: what a file of theirs looks like, and what is measured on it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

RECIPES = Path(__file__).resolve().parent / "recipes" / "protocols.toml"


@dataclass(frozen=True)
class Protocol:
    """One of flows/recipes/protocols.toml."""

    expects: str
    prompt: tuple[str, ...]  # columns of the prompts, the first that is there counts
    seed: tuple[str, ...]
    metrics: tuple[str, ...]
    source: str


ANY = Protocol("a column prompt", ("prompt", "text", "caption"), ("seed", "evaluation_seed", "sd_seed"), (), "")


@cache
def protocols() -> dict[str, Protocol]:
    """All there are, by name."""
    document = tomllib.loads(RECIPES.read_text("utf-8"))
    return {
        name: Protocol(
            values["expects"],
            tuple(values["prompt"]),
            tuple(values["seed"]),
            tuple(values["metrics"]),
            values["source"],
        )
        for name, values in document.items()
    }


def protocol(name: str | None) -> Protocol:
    """The protocol of a name; what fits any file for None. Raises ValueError that lists those there are."""
    if name is None:
        return ANY
    if name not in protocols():
        raise ValueError(f"protocol {name!r} is unknown; choose one of {', '.join(protocols())}")
    return protocols()[name]
