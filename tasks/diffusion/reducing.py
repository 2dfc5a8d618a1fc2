"""The reduction of a Linear's input to energies, on the device that it is on."""

from __future__ import annotations

import torch


def energy(x_BTN: torch.Tensor) -> torch.Tensor:
    """Sum over tokens of the squared, token-normalised activation: [batch, neuron] float32 (ConceptPrune, section 3).

    energy[b, j] = sum_i (x[b, i, j] / ||x[b, i, :]||)^2. A zero token adds 0, so the sum over j is the number of
    tokens that are not zero.
    """
    square_BTN = x_BTN.detach().float().square()
    length_BT = square_BTN.sum(-1)
    weight_BT = 1 / length_BT.clamp_min(torch.finfo(torch.float32).tiny)  # finite, also for a zero token
    return torch.bmm(weight_BT[:, None, :], square_BTN)[:, 0]
