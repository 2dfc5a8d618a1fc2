"""The demo's autoencoder: AutoencoderTiny, 32 px pictures to latents of 8 x 8 x 8 and back."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch.nn import functional as F

from demo.training import emoji

LATENT_CHANNELS = 8
CHANNELS = (48, 48, 48)
BATCH = 64
NOISE = 0.05  # on the latents, in units of their standard deviation: the decoder learns to forgive the denoiser


def build() -> AutoencoderTiny:
    """An untrained autoencoder with two factor-2 steps."""
    return AutoencoderTiny(
        encoder_block_out_channels=CHANNELS,
        decoder_block_out_channels=CHANNELS,
        num_encoder_blocks=(1, 1, 2),
        num_decoder_blocks=(2, 1, 1),
        latent_channels=LATENT_CHANNELS,
        latent_magnitude=3,
    )


def batch(pictures: np.ndarray, rng: np.random.Generator, size: int) -> torch.Tensor:
    """Random pictures on random backgrounds, one in twenty a background alone: [size, 3, H, W] in -1..1."""
    objects, styles, variants = pictures.shape[:3]
    out = np.empty((size, 3, emoji.SIZE, emoji.SIZE), np.float32)
    for i in range(size):
        rgba = pictures[rng.integers(objects), rng.integers(styles), rng.integers(variants)]
        if rng.random() < 0.05:
            rgba = np.zeros_like(rgba)
        out[i] = emoji.on_background(rgba, str(rng.choice(list(emoji.BACKGROUNDS))))
    return torch.from_numpy(out)


def train(pictures: np.ndarray, steps: int, seed: int = 0) -> tuple[AutoencoderTiny, float]:
    """A trained autoencoder with its scaling factor set, and its PSNR in dB on a fresh batch."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    vae = build()
    optimizer = torch.optim.AdamW(vae.parameters(), 2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    start = time.monotonic()
    for step in range(steps):
        x = batch(pictures, rng, BATCH)
        z = vae.encode(x).latents
        y = vae.decode(z + NOISE * z.std().detach() * torch.randn_like(z)).sample
        loss = F.l1_loss(y, x) + F.mse_loss(y, x) + 1e-4 * z.square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"autoencoder step {step}/{steps} loss {loss:.4f} {time.monotonic() - start:.0f} s", flush=True)
    vae.eval()
    with torch.no_grad():
        x = batch(pictures, rng, 256)
        z = vae.encode(x).latents
        psnr = 10 * math.log10(4 / F.mse_loss(vae.decode(z).sample, x).item())
    vae.register_to_config(scaling_factor=1 / z.std().item())
    return vae, psnr
