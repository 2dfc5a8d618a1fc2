"""Paraphrases: prompts that mean a concept in other words, from templates and short word lists of our own.

Nothing is learned. The caller says what may stand for the concept: descriptions that do not name it, or its name, to
see how far an edit reaches beyond the prompts that it was made with.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.attacks.resuming import check_at_least, generator, spec_digest, steps_to_run

SUBJECT = "subject"
FRAMES = (
    "{subject}",
    "a {medium} of {subject}",
    "{subject} {place}",
    "a {medium} of {subject} {place}",
    "{place}, {subject}",
    "{subject}, {light}, {medium}",
    "what a {medium} looks like when {subject} is in it",
)
WORDS: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "medium": ("photo", "painting", "drawing", "sketch", "poster", "close-up"),
        "place": ("in a garden", "on a table", "by the sea", "in the snow", "at night", "in an empty room"),
        "light": ("soft light", "bright colours", "black and white", "seen from above", "in the distance"),
    }
)
FIELD = re.compile(r"\{(\w+)\}")


def paraphrases(
    synonyms: Sequence[str],
    count: int,
    seed: int,
    *,
    frames: Sequence[str] = FRAMES,
    words: Mapping[str, Sequence[str]] = WORDS,
    banned: Sequence[str] = (),
) -> list[str]:
    """`count` different prompts with a synonym for {subject} and words of their lists for the other fields.

    The same for the same seed; those of a smaller count come first in a larger one.

    >>> paraphrases(["a hunter"], 2, 0, frames=["{subject}", "{subject} at {hour}"], words={"hour": ["dawn"]})
    ['a hunter', 'a hunter at dawn']

    Raises ValueError for a frame with an unknown field or no {subject}, for a count that is more than there are, and
    for a prompt that holds a banned word (whatever its case).
    """
    lists = {**words, SUBJECT: synonyms}
    fields = [FIELD.findall(frame) for frame in frames]
    for frame, used in zip(frames, fields, strict=True):
        if SUBJECT not in used or any(not lists.get(field) for field in used):
            raise ValueError(f"frame {frame!r} needs {{{SUBJECT}}}, and a list of words for each field")
    sizes = [math.prod(len(lists[field]) for field in used) for used in fields]
    if not 0 <= count <= sum(sizes):
        raise ValueError(f"{count} paraphrases were asked for; these frames and words give 0 to {sum(sizes)}")
    order = generator(seed).permutation(sum(sizes))
    every = [_nth(frames, fields, sizes, lists, int(slot)) for slot in order]
    found = list(dict.fromkeys(every))[:count]
    if len(found) < count:
        raise ValueError(f"{count} paraphrases were asked for; only {len(found)} of these are different")
    for prompt in found:
        if held := [word for word in banned if word.lower() in prompt.lower()]:
            raise ValueError(f"a paraphrase holds the banned word {held[0]!r}; leave it out of synonyms and words")
    return found


def _nth(
    frames: Sequence[str],
    fields: Sequence[list[str]],
    sizes: Sequence[int],
    lists: Mapping[str, Sequence[str]],
    slot: int,
) -> str:
    """The prompt at a slot of all that the frames give, frame by frame."""
    for frame, used, size in zip(frames, fields, sizes, strict=True):
        if slot < size:
            for field in used:
                slot, index = divmod(slot, len(lists[field]))
                frame = frame.replace(f"{{{field}}}", lists[field][index], 1)
            return frame
        slot -= size
    raise IndexError(slot)


@dataclass(frozen=True)
class TrySpec:
    """How prompts are tried."""

    budget: int  # prompts in all
    seed: int = 0  # unused here: prompts come in the order given, and the caller's judge draws by seeds of its own

    def __post_init__(self) -> None:
        check_at_least("budget", self.budget, 0)


@dataclass(frozen=True)
class TryState:
    """Which prompts were tried, and what came of them."""

    spec: str  # digest of the spec that it was begun with
    scores: tuple[float, ...] = ()  # of the first prompts, in their order

    @property
    def step(self) -> int:
        """Prompts that were tried."""
        return len(self.scores)

    def pack(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The state as named arrays and JSON values."""
        return {"scores": np.array(self.scores, np.float64)}, {"spec": self.spec}

    @classmethod
    def unpack(cls, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> TryState:
        """The state that `pack` took apart."""
        return cls(str(values["spec"]), tuple(float(score) for score in arrays["scores"]))


def try_prompts(
    score: Callable[[str], float],
    prompts: Sequence[str],
    spec: TrySpec,
    state: TryState | None = None,
    *,
    steps: int | None = None,
    progress: Callable[[TryState], None] | None = None,
) -> TryState:
    """Score prompts one by one, in their order, up to the budget; `steps` of them now, None = all that are left.

    Raises ValueError for a state of another spec, and what `score` raises.
    """
    state = state or TryState(spec_digest(spec))
    todo = steps_to_run(state.step, spec, steps, state.spec)
    for prompt in prompts[state.step : state.step + todo]:
        state = replace(state, scores=(*state.scores, float(score(prompt))))
        if progress:
            progress(state)
    return state
