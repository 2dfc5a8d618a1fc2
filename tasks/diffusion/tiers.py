"""What is kept of activations besides energies: pooled statistics, or every token, of chosen sites and steps.

Both are of the raw, un-normalised activations: the input X of a site's Linear, as the model computed it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from tasks.diffusion.spec import MAX_CALLS, NeuronSite, TierSpec


def pooled(x_BTN: torch.Tensor) -> dict[str, torch.Tensor]:
    """Over tokens: the mean, the largest absolute value and the share above 0; each [batch, neuron] float32.

    They stay on the device, as energies do.
    """
    x_BTN = x_BTN.detach().float()
    return {"mean": x_BTN.mean(1), "absmax": x_BTN.abs().amax(1), "positive": (x_BTN > 0).float().mean(1)}


def raw(x_BTN: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every token's activation [batch, token, neuron] float16, moved to the host at once: a device holds one call's.

    What is above 65504, float16's largest, becomes infinite; the store refuses it.
    """
    return {"activation": x_BTN.detach().to(torch.float16, copy=True).cpu()}


REDUCTIONS: dict[str, Callable[[torch.Tensor], dict[str, torch.Tensor]]] = {"pooled": pooled, "raw": raw}


class TierRecording:
    """What one tier keeps while a pipeline runs, call by call."""

    def __init__(self, tier: TierSpec, sites: Sequence[NeuronSite]) -> None:
        self.tier = tier
        self._seen: dict[str, dict[str, list[torch.Tensor]]] = {site.name: {} for site in tier.chosen(sites)}
        self._calls = None if tier.steps is None else set(tier.calls(MAX_CALLS))

    def observe(self, name: str, call: int, x_BTN: torch.Tensor) -> None:
        """Keep what a site's Linear gets in a denoiser call, where the tier wants it."""
        if name not in self._seen or (self._calls is not None and call not in self._calls):
            return
        for variable, values in REDUCTIONS[self.tier.kind](x_BTN).items():
            self._seen[name].setdefault(variable, []).append(values)

    def values(self, branches: int) -> dict[str, dict[str, np.ndarray]]:
        """{site: {variable: array [prompt, step, branch, ...]}} on the host; steps are those that the tier names.

        ... is neuron for "mean", "absmax" and "positive" (float32), token and neuron for "activation" (float16).
        """
        return {name: {variable: _stacked(calls, branches) for variable, calls in seen.items()}
                for name, seen in self._seen.items()}  # fmt: skip


def grid(tokens: int, height: int, width: int) -> tuple[int, int] | None:
    """Rows and columns of a site's tokens, which halve a latent of this height and width as often as it takes.

    None if they cannot be a grid of that shape: tokens of a text. Of a latent's halved sides each is rounded up.

    >>> grid(256, 64, 64), grid(6, 3, 5), grid(77, 64, 64)
    ((16, 16), (2, 3), None)
    """
    fits = [(rows, tokens // rows) for rows in range(1, tokens + 1) if tokens % rows == 0]
    fits = [(rows, columns) for rows, columns in fits if -height < rows * width - columns * height < width]
    return min(fits, key=lambda fit: abs(math.log(fit[0] * width / (fit[1] * height))), default=None)


def _stacked(calls: Sequence[torch.Tensor], branches: int) -> np.ndarray:
    return torch.stack(list(calls)).unflatten(1, (branches, -1)).movedim(2, 0).cpu().numpy()
