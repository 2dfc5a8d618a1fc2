"""Prompts and ordered sets of them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

MAX_SEED = 2**63 - 1
MAX_TEXT = 2000  # characters of a prompt; a text encoder reads a few hundred


@dataclass(frozen=True)
class Prompt:
    """A text and the seed of its first noise."""

    text: str
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed {self.seed} is out of range; use 0 to {MAX_SEED}")

    @property
    def name(self) -> str:
        """16 hex digits of the sha256 of (text, seed): the prompt's label in the store."""
        return _digest([self.text, self.seed])


@dataclass(frozen=True)
class PromptSet:
    """An ordered list of different prompts, addressed by its digest.

    Raises ValueError when it is empty or repeats one.
    """

    prompts: tuple[Prompt, ...]

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError("a prompt set needs at least one prompt")
        if len(set(self.prompts)) != len(self.prompts):
            seen: set[Prompt] = set()
            twice = next(p for p in self.prompts if p in seen or seen.add(p))  # type: ignore[func-returns-value]
            raise ValueError(
                f"prompt {twice.text!r} with seed {twice.seed} stands twice in a set; give it another seed"
            )

    def __len__(self) -> int:
        return len(self.prompts)

    @cached_property
    def digest(self) -> str:
        """16 hex digits of the sha256 of the (text, seed)s in order: the set's address in the store."""
        return _digest([[prompt.text, prompt.seed] for prompt in self.prompts])


def _digest(value: object) -> str:
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
