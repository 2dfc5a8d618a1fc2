"""UCE: cross-attention's keys and values edited in closed form.

After Gandikota, Orgad, Belinkov, Materzynska, Bau, "Unified Concept Editing in Diffusion Models" (WACV 2024). For each
W that makes keys or values of text embeddings c, the edited W' minimises

    erase    x mean over the erase set     ||W' c_i - W c*_i||^2      c*_i: the same token of a neutral text
  + preserve x mean over the preserve set  ||W' c_j - W c_j||^2
  + ridge    x                             ||W' - W||_F^2             keeps what no text spans, and the inverse exists

whose normal equations give W' = W M, with one M [width, width] for every W, as the values aimed at are W's own:

    M = (erase mean c*_i c_i^T + K) (erase mean c_i c_i^T + K)^-1,    K = preserve mean c_j c_j^T + ridge I

What was chosen here, where the paper leaves it open or speaks of Stable Diffusion:

- The erase set is the concept's target prompts, the prompts that ConceptPrune captures, not its bare words.
- The neutral text of each is its own reference prompt, which differs in the concept alone, so that over all pairs the
  concept becomes a mean of others of its kind ("reference"); or the empty text ("empty").
- From each prompt comes the last token of the concept's words ("last"), or that and all that follow it, the end and
  the padding too ("rest"): a causal text encoder tells them of the concept, and the padding is attended to. The tokens
  of the neutral text are those at the same place before the end; of the empty text, its end and padding.
- The preserve set is every token of every other text in the catalog (wording.other_texts), without the concept's words.
- Sums are means, so that the weights do not depend on how many prompts a catalog has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tasks.concepts.concept import Concept
from tests.benchmarks.peers.changes import Change
from tests.benchmarks.peers.wording import embed, last_token, tokens

KEYS_AND_VALUES = re.compile(r"\.attn2\.to_[kv]$")


@dataclass(frozen=True)
class Settings:
    """What the edit depends on, besides the prompts; docs/results.md says what was tried."""

    neutral: Literal["reference", "empty"] = "reference"
    tokens: Literal["last", "rest"] = "rest"
    erase: float = 1.0  # weights of the three terms
    preserve: float = 1.0
    ridge: float = 0.01


@dataclass(frozen=True)
class Directions:
    """Text embeddings [token, width], float64."""

    erase: torch.Tensor
    to: torch.Tensor  # what each row of `erase` becomes
    keep: torch.Tensor


def uce(pipe: Any, concept: Concept, words: str, keep: Sequence[str], settings: Settings) -> Change:
    """The edit that erases a concept, known by its words, and keeps what `keep` says."""
    matrix = transform(directions(pipe, concept, words, keep, settings), settings)
    linears = ((f"unet.{name}.weight", module.weight) for name, module in keys_and_values(pipe))
    return Change({name: edited(weight, matrix) for name, weight in linears})


def keys_and_values(pipe: Any) -> Iterator[tuple[str, torch.nn.Linear]]:
    """The Linears that make keys and values of the text, by their names in the UNet."""
    return ((name, module) for name, module in pipe.unet.named_modules() if KEYS_AND_VALUES.search(name))


def edited(weight: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """W M in the weight's own dtype; computed in float64, and on the host: some accelerators have none."""
    return (weight.detach().cpu().double() @ matrix).to(weight.dtype)


def transform(found: Directions, settings: Settings) -> torch.Tensor:
    """M [width, width], float64: the edited weight is W M."""
    n = len(found.erase)
    keep = settings.preserve * found.keep.T @ found.keep / len(found.keep)
    keep = keep + settings.ridge * torch.eye(keep.shape[0], dtype=torch.float64)
    aimed = settings.erase * found.to.T @ found.erase / n + keep
    given = settings.erase * found.erase.T @ found.erase / n + keep
    return torch.linalg.solve(given, aimed, left=False)


def directions(pipe: Any, concept: Concept, words: str, keep: Sequence[str], settings: Settings) -> Directions:
    """The embeddings that the edit is solved for. Raises ValueError if no target prompt differs from its reference."""
    erase, to = [], []
    for target, reference in zip(concept.target.prompts, concept.reference.prompts, strict=True):
        if target.text == reference.text:
            continue  # a style's references are of all styles, its own too
        neutral = "" if settings.neutral == "empty" else reference.text
        first = last_token(pipe, target.text, words)
        if first is None:
            raise ValueError(f"a target prompt of {concept.slug} does not say {words!r}")
        start = neutral_start(tokens(pipe, target.text), tokens(pipe, neutral), first)
        these, those = embed(pipe, [target.text, neutral]).cpu().double()
        count = 1 if settings.tokens == "last" else min(len(these) - first, len(those) - start)
        erase.append(these[first : first + count])
        to.append(those[start : start + count])
    if not erase:
        raise ValueError(f"no target prompt of {concept.slug} differs from its reference")
    return Directions(torch.cat(erase), torch.cat(to), embed(pipe, keep).cpu().double().flatten(0, 1))


def neutral_start(target: Sequence[int], neutral: Sequence[int], first: int) -> int:
    """Where the token at `first` of the target has its counterpart: as far before the end, or, in a text that is
    shorter than what follows it, at the end.

    >>> neutral_start([0, 3, 28, 36, 1], [0, 3, 9, 8, 36, 1], 2), neutral_start([0, 3, 28, 36, 1], [0, 1], 2)
    (3, 1)
    """
    start = len(neutral) - (len(target) - first)
    return start if start > 0 else len(neutral) - 1
