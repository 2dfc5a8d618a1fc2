"""Adversarial token search: words in front of a prompt that make the edited model draw the erased concept.

Two aims, which are two kinds of `Draws` of tasks.attacks.denoising:

- `image_draws` of images of the concept: the prompt under which the edited model denoises them best, the aim of
  UnlearnDiffAtk (Zhang et al., "To Generate or Not? Safety-Driven Unlearned Diffusion Models Are Still Easy To Generate
  Unsafe Images ... For Now", ECCV 2024).
- `prediction_draws`, taken before the edit: the prompt under which the edited model predicts what the unedited one
  does for the original prompt, the aim of P4D (Chin et al., "Prompting4Debugging", ICML 2024).

The search is the same for both: gradients at the prefix's embeddings rank replacements of single tokens, the best are
tried, and the best of those is kept if it lowers the loss (as in AutoPrompt, Shin et al., EMNLP 2020). UnlearnDiffAtk
and P4D project steps in embedding space instead. Every prompt that is tried is text that tokenises to its very tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.attacks.denoising import Draws, check_pipeline, frozen, losses, text_states, token_ids
from tasks.attacks.resuming import check_at_least, generator, spec_digest, steps_to_run


@dataclass(frozen=True)
class TokenSpec:
    """How a prefix is searched. Raises ValueError for a field that makes no sense."""

    budget: int  # steps in all, each of which replaces one token or none
    seed: int = 0
    tokens: int = 3  # of the prefix
    candidates: int = 12  # prompts tried a step
    shortlist: int = 16  # best replacements of each position by gradient, of which candidates are drawn
    banned: tuple[str, ...] = ()  # words that no token may contain, such as the concept's name

    def __post_init__(self) -> None:
        check_at_least("budget", self.budget, 0)
        for name in ("tokens", "candidates", "shortlist"):
            check_at_least(name, getattr(self, name), 1)


@dataclass(frozen=True)
class TokenState:
    """Where a search stands."""

    spec: str  # digest of the spec that it was begun with
    step: int  # steps done
    ids: tuple[int, ...]  # the best prefix so far
    prompt: str  # the prefix as text, and the rest
    losses: tuple[float, ...]  # the best so far, before the first step and after each: never rising

    def pack(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The state as named arrays and JSON values."""
        values = {"spec": self.spec, "step": self.step, "prompt": self.prompt, "losses": list(self.losses)}
        return {"ids": np.array(self.ids, np.int64)}, values

    @classmethod
    def unpack(cls, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> TokenState:
        """The state that `pack` took apart."""
        ids, found = tuple(int(i) for i in arrays["ids"]), tuple(map(float, values["losses"]))
        return cls(str(values["spec"]), int(values["step"]), ids, str(values["prompt"]), found)


def search_tokens(
    pipe: Any,
    draws: Draws,
    rest: str,
    spec: TokenSpec,
    state: TokenState | None = None,
    *,
    steps: int | None = None,
    progress: Callable[[TokenState], None] | None = None,
) -> TokenState:
    """Find tokens in front of `rest` under which the pipeline, as it is now, answers the draws best.

    `steps` of the budget are done, None = all that are left; `progress` gets the state after each. Raises ValueError
    for a pipeline of another kind than a UNet with one CLIP encoder, a prompt that is too long, no tokens that are
    allowed, and a state of another spec.
    """
    check_pipeline(pipe)
    with frozen(pipe):
        words = _Words(pipe, rest, spec)
        state = state or _start(pipe, draws, words, spec)
        for _ in range(steps_to_run(state.step, spec, steps, state.spec)):
            state = _stepped(pipe, draws, words, spec, state)
            if progress:
                progress(state)
    return state


class _Words:
    """The tokens that a prefix may be made of, and prompts of them and the rest."""

    def __init__(self, pipe: Any, rest: str, spec: TokenSpec) -> None:
        self.tokenizer, self.rest = pipe.tokenizer, rest
        self.rest_ids = self._ids(rest) if rest else []
        room = self.tokenizer.model_max_length - len(self.tokenizer("").input_ids) - len(self.rest_ids)
        if spec.tokens > room:
            raise ValueError(f"a prefix of {spec.tokens} tokens does not fit: beside the rest there is room for {room}")
        self.allowed = self._allowed(spec.banned)
        if not len(self.allowed):
            raise ValueError("no token is allowed: every one is special, banned or no word of its own")

    def prompt(self, prefix: tuple[int, ...]) -> str | None:
        """The prefix and the rest as text, or None where the text has other tokens."""
        text = f"{self.tokenizer.decode(prefix).strip()} {self.rest}".strip()
        return text if self._ids(text) == [*prefix, *self.rest_ids] else None

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _allowed(self, banned: tuple[str, ...]) -> NDArray[np.int64]:
        special = set(self.tokenizer.all_special_ids)
        ids = [i for i in range(len(self.tokenizer)) if i not in special]
        texts = [self.tokenizer.decode([i]) for i in ids]
        again = self.tokenizer(texts, add_special_tokens=False).input_ids
        unwanted = [word.lower() for word in banned]
        return np.array(
            [
                i
                for i, text, back in zip(ids, texts, again, strict=True)
                if list(back) == [i] and not any(word in text.lower() for word in unwanted)
            ],
            np.int64,
        )


def _start(pipe: Any, draws: Draws, words: _Words, spec: TokenSpec) -> TokenState:
    """The state before the first step: a prefix by chance."""
    random = generator(spec.seed)
    for _ in range(100):
        ids = tuple(int(i) for i in random.choice(words.allowed, spec.tokens))
        if (prompt := words.prompt(ids)) is not None:
            return TokenState(spec_digest(spec), 0, ids, prompt, (_loss(pipe, prompt, draws),))
    raise ValueError("of 100 prefixes none is text that tokenises to itself; this tokenizer is not supported")


def _stepped(pipe: Any, draws: Draws, words: _Words, spec: TokenSpec, state: TokenState) -> TokenState:
    """The state after one step."""
    best = np.argsort(-_gains(pipe, draws, words.allowed, state), axis=1, kind="stable")[:, : spec.shortlist]
    random = generator(spec.seed, state.step + 1)
    found = state.losses[-1], state.ids, state.prompt
    for slot in random.permutation(best.size)[: spec.candidates]:
        position, rank = divmod(int(slot), best.shape[1])
        ids = list(state.ids)
        ids[position] = int(words.allowed[best[position, rank]])
        prompt = words.prompt(tuple(ids)) if tuple(ids) != state.ids else None
        if prompt is not None and (loss := _loss(pipe, prompt, draws)) < found[0]:
            found = loss, tuple(ids), prompt
    return TokenState(state.spec, state.step + 1, found[1], found[2], (*state.losses, found[0]))


@torch.no_grad()
def _loss(pipe: Any, prompt: str, draws: Draws) -> float:
    states = text_states(pipe, token_ids(pipe, [prompt])).expand(len(draws.noisy), -1, -1)
    return float(losses(pipe, states, draws).mean())


def _gains(pipe: Any, draws: Draws, allowed: NDArray[np.int64], state: TokenState) -> NDArray[np.float32]:
    """By how much the loss would fall to first order [position, allowed], if a token of the prefix were replaced."""
    table = pipe.text_encoder.get_input_embeddings().weight.detach().float()
    ids = token_ids(pipe, [state.prompt])
    start = len(pipe.tokenizer("").input_ids) - 1  # the tokens before a prompt: all but the one at its end
    places = torch.arange(len(state.ids), device=ids.device)
    ids[0, start : start + len(state.ids)] = len(table) + places
    vectors = table[list(state.ids)].clone().requires_grad_()
    with torch.enable_grad():
        states = text_states(pipe, ids, vectors).expand(len(draws.noisy), -1, -1)
        (gradient,) = torch.autograd.grad(losses(pipe, states, draws).mean(), vectors)
    own = (gradient * vectors.detach()).sum(1, keepdim=True)
    gains: NDArray[np.float32] = (own - gradient @ table[torch.from_numpy(allowed).to(table.device)].T).cpu().numpy()
    return gains
