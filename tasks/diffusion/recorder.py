"""Observes the neurons of a running pipeline without changing it.

    with record(pipe, sites, branches=2) as recording:
        generate(pipe, prompts, spec)
    recording.energies()["unet.mid_block.attentions.0.transformer_blocks.0.ff.net.2"]   # [prompt, step, branch, neuron]

A forward pre-hook on each site's Linear reduces its input to energies on the device, in float32; a pre-hook on the
denoiser counts its calls. Both go when the `with` block ends, however it ends. With `tiers` the same hooks also keep
pooled statistics or raw tokens, of the sites and steps that a tier names:

    with record(pipe, sites, branches=2, tiers=[tier]) as recording:
        generate(pipe, prompts, spec)
    recording.tier(tier)["unet.mid_block..."]["mean"]   # [prompt, step, branch, neuron]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from tasks.diffusion.sites import linear
from tasks.diffusion.spec import NeuronSite, TierSpec
from tasks.diffusion.tiers import TierRecording, grid


def energy(x_BTN: torch.Tensor) -> torch.Tensor:
    """Sum over tokens of the squared, token-normalised activation: [batch, neuron] float32 (ConceptPrune, section 3).

    energy[b, j] = sum_i (x[b, i, j] / ||x[b, i, :]||)^2. A zero token adds 0, so the sum over j is the number of
    tokens that are not zero.
    """
    square_BTN = x_BTN.detach().float().square()
    length_BT = square_BTN.sum(-1)
    weight_BT = 1 / length_BT.clamp_min(torch.finfo(torch.float32).tiny)  # finite, also for a zero token
    return torch.bmm(weight_BT[:, None, :], square_BTN)[:, 0]


class Recording:
    """What `record` saw: one [branch x prompt, neuron] energy a site and denoiser call, kept on the device."""

    def __init__(self, sites: Sequence[NeuronSite], branches: int, tiers: Sequence[TierSpec] = ()) -> None:
        self.branches = branches
        self.calls = 0  # denoiser calls so far
        self.tokens: dict[str, int] = {}
        self._energies: dict[str, list[torch.Tensor]] = {site.name: [] for site in sites}
        self._tiers = {tier: TierRecording(tier, sites) for tier in tiers}
        self._latent: tuple[int, ...] = ()

    def _count(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.calls += 1
        latent = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
        self._latent = () if latent is None else tuple(latent.shape)

    def _observe(self, name: str, x: torch.Tensor) -> None:
        seen = self._energies[name]
        if len(seen) != self.calls - 1:
            raise RuntimeError(f"{name} ran {len(seen) + 1} times in {self.calls} denoiser calls; expected once a call")
        self.tokens[name] = x.shape[-2]
        seen.append(energy(x))
        for tier in self._tiers.values():
            tier.observe(name, self.calls - 1, x)

    def energies(self) -> dict[str, np.ndarray]:
        """Energies [prompt, step, branch, neuron] float32 by site name, copied to the host.

        Raises RuntimeError if a site was not seen in every denoiser call.
        """
        out = {}
        for name, seen in self._energies.items():
            if len(seen) != self.calls:
                raise RuntimeError(f"{name} was seen in {len(seen)} of {self.calls} denoiser calls; expected all")
            stacked = torch.stack(seen).unflatten(1, (self.branches, -1))  # step, branch, prompt, neuron
            out[name] = stacked.permute(2, 0, 1, 3).contiguous().cpu().numpy()
        return out

    def tier(self, tier: TierSpec) -> dict[str, dict[str, np.ndarray]]:
        """{site: {variable: array [prompt, step, branch, ...]}} of one of the tiers; see TierRecording.values."""
        return self._tiers[tier].values(self.branches)

    def grids(self) -> dict[str, tuple[int, int] | None]:
        """Rows and columns of each site's tokens, as the denoiser's latent has them; None where they form no grid."""
        sides = self._latent[-2:] if len(self._latent) == 4 else None
        return {name: grid(tokens, *sides) if sides else None for name, tokens in self.tokens.items()}


@contextmanager
def record(
    pipe: Any, sites: Sequence[NeuronSite], branches: int, tiers: Sequence[TierSpec] = ()
) -> Iterator[Recording]:
    """Record the energies of `sites` while the block runs; `branches` is 2 under classifier-free guidance, else 1.

    Each of `tiers` keeps more of the sites and steps that it names; what is recorded anyway stays the same bit for bit.
    Raises ValueError if a tier names a site that is not observed.
    """
    recording = Recording(sites, branches, tiers)

    def hook_for(name: str) -> Any:
        return lambda module, args: recording._observe(name, args[0])

    linears = {site.name: linear(pipe, site.name) for site in sites}
    handles = []
    try:
        for component in dict.fromkeys(site.component for site in sites):
            handles.append(getattr(pipe, component).register_forward_pre_hook(recording._count, with_kwargs=True))
        for name, module in linears.items():
            handles.append(module.register_forward_pre_hook(hook_for(name)))
        yield recording
    finally:
        for handle in handles:
            handle.remove()
