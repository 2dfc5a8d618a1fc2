"""The demo's judge: a small ResNet that names the object and the style of a picture.

It never sees the denoiser: it learns from renderings and from their autoencoder reconstructions, and is tested on
renderings with other shifts and scales. One classifier, two groups of labels: "object:fox", "object:nothing" and
"style:noto".
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch.nn import functional as F
from transformers import ResNetConfig, ResNetForImageClassification

from demo.training import emoji

BATCH = 128
NOTHING = "nothing"
LABELS = [f"object:{name}" for name in (*emoji.OBJECTS, NOTHING)] + [f"style:{name}" for name in emoji.STYLES]
OBJECT_LABELS = len(emoji.OBJECTS) + 1


def build() -> ResNetForImageClassification:
    """An untrained judge for 32 px pictures in -1..1."""
    return ResNetForImageClassification(
        ResNetConfig(
            embedding_size=32,
            hidden_sizes=[32, 64, 96],
            depths=[2, 2, 2],
            layer_type="basic",
            id2label=dict(enumerate(LABELS)),
            label2id={label: i for i, label in enumerate(LABELS)},
        )
    )


def batch(pictures: np.ndarray, rng: np.random.Generator, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures [size, 3, H, W] in -1..1 and labels [size, 2], the object's and the style's.

    The last object is "nothing"; its style is -100.
    """
    objects, styles, variants = pictures.shape[:3]
    x = np.empty((size, 3, emoji.SIZE, emoji.SIZE), np.float32)
    labels = np.stack([rng.integers(objects, size=size), rng.integers(styles, size=size)], 1)
    for k, (o, s) in enumerate(labels):
        x[k] = emoji.on_background(pictures[o, s, rng.integers(variants)], str(rng.choice(list(emoji.BACKGROUNDS))))
    for i in np.flatnonzero(rng.random(size) < 0.05):
        background = str(rng.choice(list(emoji.BACKGROUNDS)))
        x[i] = emoji.on_background(np.zeros_like(pictures[0, 0, 0]), background)
        labels[i] = objects, -100
    return torch.from_numpy(x), torch.from_numpy(labels)


def blemish(x: torch.Tensor, vae: AutoencoderTiny, rng: np.random.Generator) -> torch.Tensor:
    """Half of the pictures through the autoencoder with noisy latents; all with some noise and another brightness."""
    x = x.clone()
    half = torch.from_numpy(rng.random(len(x)) < 0.5)
    with torch.no_grad():
        z = vae.encode(x[half]).latents
        x[half] = vae.decode(z + rng.uniform(0, 0.3) * z.std() * torch.randn_like(z)).sample
    gain = torch.from_numpy(rng.uniform(0.85, 1.15, (len(x), 1, 1, 1)).astype("f4"))
    return (x * gain + rng.uniform(0, 0.1) * torch.randn_like(x)).clamp(-1, 1)


def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of both groups, added."""
    objects, styles = logits.split([OBJECT_LABELS, len(emoji.STYLES)], 1)
    return F.cross_entropy(objects, labels[:, 0]) + F.cross_entropy(styles, labels[:, 1], ignore_index=-100)


@torch.no_grad()
def accuracy(judge: ResNetForImageClassification, x: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Shares of right objects and of right styles (where there is one)."""
    logits = torch.cat([judge(part).logits for part in x.split(256)])
    objects, styles = logits.split([OBJECT_LABELS, len(emoji.STYLES)], 1)
    seen = labels[:, 1] >= 0
    right = (objects.argmax(1) == labels[:, 0]).float().mean(), (styles.argmax(1) == labels[:, 1])[seen].float().mean()
    return right[0].item(), right[1].item()


def train(
    pictures: np.ndarray, held_out: np.ndarray, vae: AutoencoderTiny, steps: int, seed: int = 0
) -> tuple[ResNetForImageClassification, tuple[float, float]]:
    """A trained judge, and its accuracies (object, style) on 2,000 clean held-out renderings."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    judge = build()
    optimizer = torch.optim.AdamW(judge.parameters(), 3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    judge.train()
    for step in range(steps):
        x, labels = batch(pictures, rng, BATCH)
        error = loss(judge(blemish(x, vae, rng)).logits, labels)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"judge step {step}/{steps} loss {error:.3f}", flush=True)
    judge.eval()
    return judge, accuracy(judge, *batch(held_out, rng, 2000))
