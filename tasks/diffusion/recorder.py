"""Observes the neurons of a running pipeline without changing it.

    with record(pipe, sites, branches=2) as recording:
        generate(pipe, prompts, spec)
    recording.energies()["unet.mid_block.attentions.0.transformer_blocks.0.ff.net.2"]   # [prompt, step, branch, neuron]

A forward pre-hook on each site's Linear reduces its input to energies on the device, in float32; a pre-hook on the
denoiser counts its calls. All go when the `with` block ends, however it ends. A site whose input is the same at every
step is seen at the first one; one that has another site's input is not watched at all. With `tiers` the same hooks also
keep pooled statistics or raw tokens, of the sites and steps that a tier names:

    with record(pipe, sites, branches=2, tiers=[tier]) as recording:
        generate(pipe, prompts, spec)
    recording.tier(tier)["unet.mid_block..."]["mean"]   # [prompt, step, branch, neuron]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from tasks.diffusion.encoders import TextRecording, record_text
from tasks.diffusion.reducing import energy
from tasks.diffusion.sites import denoiser, linear
from tasks.diffusion.spec import NeuronSite, TierSpec
from tasks.diffusion.tiers import TierRecording, grid


class Recording:
    """What `record` saw: one [branch x prompt, neuron] energy a site and denoiser call, kept on the device."""

    def __init__(
        self, sites: Sequence[NeuronSite], branches: int, tiers: Sequence[TierSpec], text: TextRecording
    ) -> None:
        self.branches = branches
        self.calls = 0  # denoiser calls so far
        self.tokens: dict[str, int] = {}  # of the denoiser's sites
        self._text = text
        self._sites = {site.name: site for site in sites}
        self._energies: dict[str, list[torch.Tensor]] = {site.name: [] for site in sites}
        self._counts: dict[str, torch.Tensor] = {}  # of the sites that are seen once: [branch x prompt]
        self._tiers = {tier: TierRecording(tier, sites) for tier in tiers}
        self._latent: tuple[int, ...] = ()

    def _count(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.calls += 1
        latent = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
        self._latent = () if latent is None else tuple(latent.shape)

    def _observe(self, name: str, x: torch.Tensor) -> None:
        seen, site = self._energies[name], self._sites[name]
        if site.once and seen:
            return
        if len(seen) != self.calls - 1:
            raise RuntimeError(f"{name} ran {len(seen) + 1} times in {self.calls} denoiser calls; expected once a call")
        neurons = x[..., site.start :]
        self.tokens[name] = x.shape[-2]
        if site.once:  # SDXL's embedding of an empty prompt is zero
            self._counts[name] = neurons.detach().abs().amax(-1).gt(0).sum(-1)
        seen.append(energy(neurons))
        for tier in self._tiers.values():
            tier.observe(name, self.calls - 1, neurons)

    def energies(self) -> dict[str, np.ndarray]:
        """Energies [prompt, step, branch, neuron] float32 by site name, copied to the host.

        Sites that see the same at every step have no step: [prompt, branch, neuron]. Raises RuntimeError if a site was
        not seen in every denoiser call, or in every run of its text encoder.
        """
        out = self._text.energies()
        for name, seen in self._energies.items():
            once = self._sites[name].once
            if len(seen) != (1 if once else self.calls):
                raise RuntimeError(f"{name} was seen in {len(seen)} of {self.calls} denoiser calls; expected all")
            stacked = torch.stack(seen).unflatten(1, (self.branches, -1))  # step, branch, prompt, neuron
            found = stacked.permute(2, 0, 1, 3).contiguous().cpu().numpy()
            out[name] = found[:, 0] if once else found
        return out

    def tokens_of(self, prompt: int) -> dict[str, int | np.ndarray]:
        """What one prompt's energies sum to, by site name: its tokens; one number a branch where the text is read."""
        read = {name: counts.cpu().numpy().reshape(self.branches, -1).T for name, counts in self._counts.items()}
        return {**self.tokens, **{name: found[prompt] for name, found in {**read, **self._text.tokens()}.items()}}

    def tier(self, tier: TierSpec) -> dict[str, dict[str, np.ndarray]]:
        """{site: {variable: array [prompt, step, branch, ...]}} of one of the tiers; see TierRecording.values."""
        return self._tiers[tier].values(self.branches)

    def grids(self) -> dict[str, tuple[int, int] | None]:
        """Rows and columns of each site's tokens, as the denoiser's latent has them; None where they form no grid."""
        sides = self._latent[-2:] if len(self._latent) == 4 else None
        return {name: grid(tokens, *sides) if sides else None for name, tokens in self.tokens.items()}


@contextmanager
def record(
    pipe: Any, sites: Sequence[NeuronSite], branches: int, tiers: Sequence[TierSpec] = (), padding: bool = True
) -> Iterator[Recording]:
    """Record the energies of `sites` while the block runs; `branches` is 2 under classifier-free guidance, else 1.

    Each of `tiers` keeps more of the sites and steps that it names; what is recorded anyway stays the same bit for bit.
    `padding` says whether padding tokens count in text encoders. Raises ValueError if a site is not in the pipeline, or
    a tier names one that is not observed.
    """
    text = [site for site in sites if site.kind == "text"]
    watched = {site.name: linear(pipe, site.name) for site in sites if site.kind != "text" and not site.source}
    with ExitStack() as hooks:
        seen = hooks.enter_context(record_text(pipe, text, branches, padding))
        recording = Recording([site for site in sites if site.name in watched], branches, tiers, seen)
        hooks.callback(denoiser(pipe).register_forward_pre_hook(recording._count, with_kwargs=True).remove)
        for name, module in watched.items():
            handle = module.register_forward_pre_hook(lambda module, args, name=name: recording._observe(name, args[0]))
            hooks.callback(handle.remove)
        yield recording
