"""Concept inversion: a token vector that makes the edited model draw what it should have forgotten.

Textual inversion (Gal et al., ICLR 2023) against an edited model, after Pham et al., "Circumventing Concept Erasure
Methods For Text-to-Image Generative Models", ICLR 2024. The model's weights stay frozen; all that is learned is one or
a few vectors of a placeholder token, from images of the concept that the unedited model drew.

    with pruned(pipe, masks):
        state = invert(pipe, images, ["a {} on a blue background"], InversionSpec(budget=200))
        with with_placeholder(pipe, state.vectors):
            pipe("a <concept> on a green background")
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tasks.attacks.denoising import check_pipeline, frozen, image_draws, latents_of, losses, text_states, token_ids
from tasks.attacks.resuming import check_at_least, generator, spec_digest, steps_to_run

PLACEHOLDER = "<concept>"
BETAS = (0.9, 0.999)  # Adam's


@dataclass(frozen=True)
class InversionSpec:
    """How a concept is inverted. Raises ValueError for a field that makes no sense."""

    budget: int  # gradient steps in all
    seed: int = 0
    vectors: int = 1  # token vectors that are learned
    batch: int = 8  # noisy images a step
    learning_rate: float = 0.005  # of Adam: the textual inversion paper's
    initial: str = ""  # text whose tokens' vectors it starts from, in turn; "" = the vocabulary's mean and some noise

    def __post_init__(self) -> None:
        check_at_least("budget", self.budget, 0)
        check_at_least("vectors", self.vectors, 1)
        check_at_least("batch", self.batch, 1)
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}; it must be above 0")


@dataclass(frozen=True)
class InversionState:
    """Where an inversion stands."""

    spec: str  # digest of the spec that it was begun with
    step: int  # steps done
    vectors: NDArray[np.float32]  # [vector, width] learned so far
    mean: NDArray[np.float32]  # [vector, width] of the gradients: Adam's first moment
    square: NDArray[np.float32]  # [vector, width] of the gradients' squares: Adam's second moment
    losses: tuple[float, ...]  # of each step's batch, before the step

    def pack(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """The state as named arrays and JSON values."""
        arrays: dict[str, NDArray[Any]] = {"vectors": self.vectors, "mean": self.mean, "square": self.square}
        return arrays, {"spec": self.spec, "step": self.step, "losses": list(self.losses)}

    @classmethod
    def unpack(cls, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> InversionState:
        """The state that `pack` took apart."""
        own = {name: np.array(arrays[name], np.float32) for name in ("vectors", "mean", "square")}
        return cls(str(values["spec"]), int(values["step"]), losses=tuple(map(float, values["losses"])), **own)


def invert(
    pipe: Any,
    images: Sequence[Image.Image],
    templates: Sequence[str],
    spec: InversionSpec,
    state: InversionState | None = None,
    *,
    steps: int | None = None,
    progress: Callable[[InversionState], None] | None = None,
) -> InversionState:
    """Learn vectors of a placeholder token from images of the concept, on the pipeline as it is now.

    `templates` are prompts with {} where the placeholder goes; each draw takes one. `steps` of the budget are done,
    None = all that are left; `progress` gets the state after each. Raises ValueError for a pipeline of another kind
    than a UNet with one CLIP encoder, for no images, a template without {}, and a state of another spec.
    """
    check_pipeline(pipe)
    if not templates or any("{}" not in template for template in templates):
        raise ValueError("each template needs {} where the placeholder goes, such as 'a photo of {}'")
    with frozen(pipe):
        state = state or _start(pipe, spec)
        todo = steps_to_run(state.step, spec, steps, state.spec)
        latents = latents_of(pipe, images)
        reader = _with_tokens(pipe.tokenizer, PLACEHOLDER, spec.vectors)
        texts = [template.replace("{}", " ".join(_names(PLACEHOLDER, spec.vectors))) for template in templates]
        ids = token_ids(pipe, texts, reader)
        for _ in range(todo):
            loss, gradient = _gradient(pipe, latents, ids, spec, state)
            state = _stepped(state, loss, gradient, spec.learning_rate)
            if progress:
                progress(state)
    return state


@contextmanager
def with_placeholder(pipe: Any, vectors: NDArray[np.float32], placeholder: str = PLACEHOLDER) -> Iterator[Any]:
    """The pipeline with a token that means `vectors` [vector, width] in its prompts while the block runs.

    Then it has its own tokenizer and embedding again, the very objects. Raises ValueError for vectors of another
    width, and for a placeholder that the tokenizer knows already.
    """
    check_pipeline(pipe)
    tokenizer, table = pipe.tokenizer, pipe.text_encoder.get_input_embeddings()
    weight = table.weight
    if vectors.ndim != 2 or vectors.shape[1] != weight.shape[1]:
        raise ValueError(f"vectors of shape {vectors.shape} for an embedding of width {weight.shape[1]}")
    reader = _with_tokens(tokenizer, placeholder, len(vectors))
    rows = torch.from_numpy(np.array(vectors, np.float32)).to(weight.device, weight.dtype)
    try:
        pipe.tokenizer = reader  # the pipeline itself writes a placeholder of several vectors out in full
        table.weight = torch.nn.Parameter(torch.cat([weight.detach(), rows]), requires_grad=False)
        yield pipe
    finally:
        pipe.tokenizer = tokenizer
        table.weight = weight


def _names(placeholder: str, count: int) -> list[str]:
    """The tokens of a placeholder, named as diffusers names them."""
    return [placeholder, *(f"{placeholder}_{i}" for i in range(1, count))]


def _with_tokens(tokenizer: Any, placeholder: str, count: int) -> Any:
    """A copy of the tokenizer that knows the placeholder's tokens, with the next ids after its own."""
    names, size = _names(placeholder, count), len(tokenizer)
    if known := set(names) & set(tokenizer.get_vocab()):
        raise ValueError(f"the tokenizer knows {sorted(known)[0]} already; choose another placeholder")
    reader = copy.deepcopy(tokenizer)
    reader.add_tokens(names)
    if reader.convert_tokens_to_ids(names) != list(range(size, size + count)):
        raise ValueError(f"the tokenizer gives {placeholder} no new ids; this kind of tokenizer is not supported")
    return reader


def _start(pipe: Any, spec: InversionSpec) -> InversionState:
    """The state before the first step."""
    table = pipe.text_encoder.get_input_embeddings().weight.detach().float().cpu().numpy()
    if spec.initial:
        ids = pipe.tokenizer(spec.initial, add_special_tokens=False).input_ids
        if not ids:
            raise ValueError(f"initial {spec.initial!r} has no token; give a word, or leave it out")
        vectors = table[np.resize(ids, spec.vectors)]
    else:
        noise = generator(spec.seed).standard_normal((spec.vectors, table.shape[1]))
        vectors = (table.mean(0) + 0.1 * table.std(0) * noise).astype(np.float32)
    return InversionState(spec_digest(spec), 0, vectors, np.zeros_like(vectors), np.zeros_like(vectors), ())


def _gradient(
    pipe: Any, latents: torch.Tensor, ids: torch.Tensor, spec: InversionSpec, state: InversionState
) -> tuple[float, NDArray[np.float32]]:
    """The denoising loss of this step's batch, and its gradient [vector, width]."""
    draws = image_draws(pipe, latents, spec.batch, spec.seed, state.step, 0)
    which = generator(spec.seed, state.step, 1).integers(0, len(ids), spec.batch)
    vectors = torch.from_numpy(state.vectors.copy()).to(ids.device).requires_grad_()
    with torch.enable_grad():
        loss = losses(pipe, text_states(pipe, ids[torch.from_numpy(which).to(ids.device)], vectors), draws).mean()
        (gradient,) = torch.autograd.grad(loss, vectors)
    return float(loss.detach()), gradient.cpu().numpy()


def _stepped(state: InversionState, loss: float, gradient: NDArray[np.float32], rate: float) -> InversionState:
    """The state after a step of Adam (Kingma and Ba, ICLR 2015)."""
    step = state.step + 1
    mean = BETAS[0] * state.mean + (1 - BETAS[0]) * gradient
    square = BETAS[1] * state.square + (1 - BETAS[1]) * gradient**2
    change = (mean / (1 - BETAS[0] ** step)) / (np.sqrt(square / (1 - BETAS[1] ** step)) + 1e-8)
    vectors = (state.vectors - rate * change).astype(np.float32)
    return replace(state, step=step, vectors=vectors, mean=mean, square=square, losses=(*state.losses, loss))
