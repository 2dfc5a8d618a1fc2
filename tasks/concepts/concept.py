"""Concepts: what is to be erased, the prompts that show it, and the prompts that tell whether it is gone."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tasks.concepts.prompts import Prompt, PromptSet

SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")  # to be matched in full


@dataclass(frozen=True)
class Expectation:
    """A prompt with the labels that a judge should give its image, e.g. ("object:fox", "style:noto")."""

    prompt: Prompt
    labels: tuple[str, ...]


@dataclass(frozen=True)
class EvaluationSet:
    """Prompts that no capture used: of the concept, with its label, and of everything else, with theirs."""

    concept: tuple[Expectation, ...]
    others: tuple[Expectation, ...]


@dataclass(frozen=True)
class Concept:
    """A concept with its two prompt sets.

    Raises ValueError for a slug that is no slug, or an evaluation prompt that the capture uses too.
    """

    slug: str
    kind: str  # "object", "style", ...
    reference: PromptSet
    target: PromptSet
    evaluation: EvaluationSet

    def __post_init__(self) -> None:
        if not SLUG.fullmatch(self.slug):
            raise ValueError(f"slug {self.slug!r} is not made of lower-case letters, digits and single dashes")
        captured = {*self.reference.prompts, *self.target.prompts}
        for expectation in (*self.evaluation.concept, *self.evaluation.others):
            if expectation.prompt in captured:
                raise ValueError(
                    f"concept {self.slug}: evaluation prompt {expectation.prompt.text!r} with seed "
                    f"{expectation.prompt.seed} is also captured; give the evaluation other seeds or words"
                )
