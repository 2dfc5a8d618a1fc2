"""What text encoders see: each runs once for the prompts and then, where guidance needs it, once for empty ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from tasks.diffusion.reducing import energy
from tasks.diffusion.sites import linear
from tasks.diffusion.spec import NeuronSite


class TextRecording:
    """One [prompt, neuron] energy and one [prompt] count of tokens, a site and run of its encoder."""

    def __init__(self, sites: Sequence[NeuronSite], branches: int, padding: bool) -> None:
        self.branches = branches
        self.padding = padding
        self._seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {site.name: [] for site in sites}
        self._real: dict[str, torch.Tensor] = {}  # component: [prompt, token], up to the token that ends the text

    def _read(self, component: str, end: int, ids: torch.Tensor) -> None:
        ends = (ids == end).int()
        self._real[component] = (ends.cumsum(-1) - ends) == 0

    def _observe(self, name: str, x: torch.Tensor) -> None:
        real = self._real[name.partition(".")[0]].to(x.device)
        counts = torch.ones_like(real) if self.padding else real
        self._seen[name].append((energy(x * counts[..., None]), counts.sum(-1)))

    def energies(self) -> dict[str, np.ndarray]:
        """Energies [prompt, branch, neuron] float32 by site name; a half that no encoder ran for is 0.

        Raises RuntimeError if an encoder ran more often than there are branches, or never.
        """
        return {name: self._by_branch(name, [energies for energies, _ in seen]) for name, seen in self._seen.items()}

    def tokens(self) -> dict[str, np.ndarray]:
        """Tokens that count [prompt, branch] by site name: what the energies sum to."""
        return {name: self._by_branch(name, [tokens for _, tokens in seen]) for name, seen in self._seen.items()}

    def _by_branch(self, name: str, runs: Sequence[torch.Tensor]) -> np.ndarray:
        if not 1 <= len(runs) <= self.branches or len({run.shape for run in runs}) > 1:
            raise RuntimeError(f"the encoder of {name} ran {len(runs)} times; expected once for each of the branches")
        missing = [torch.zeros_like(runs[0])] * (self.branches - len(runs))
        return torch.stack([*missing, *reversed(runs)], 1).cpu().numpy()  # the prompts come first, and are cond


@contextmanager
def record_text(pipe: Any, sites: Sequence[NeuronSite], branches: int, padding: bool) -> Iterator[TextRecording]:
    """Record the energies of text encoders' sites while the block runs; `padding` says whether padding tokens count."""
    recording = TextRecording(sites, branches, padding)

    def reader(component: str) -> Any:
        end = getattr(pipe, component.replace("text_encoder", "tokenizer")).eos_token_id

        def read(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            recording._read(component, end, args[0] if args else kwargs["input_ids"])

        return read

    with ExitStack() as hooks:
        for component in dict.fromkeys(site.component for site in sites):
            handle = getattr(pipe, component).register_forward_pre_hook(reader(component), with_kwargs=True)
            hooks.callback(handle.remove)
        for name in (site.name for site in sites):
            observe = linear(pipe, name).register_forward_pre_hook(
                lambda module, args, name=name: recording._observe(name, args[0])
            )
            hooks.callback(observe.remove)
        yield recording
