"""The bundled model's own score: python -m demo.training.score

Draws every object in every style, once, and lets the judge say what it sees; then again with every feed-forward's
output set to zero, which tells how much of the concepts lives there. Prints one JSON document. Minutes on two cores.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from transformers import ResNetForImageClassification

import demo
from demo.training import captions, emoji
from demo.training.judge import OBJECT_LABELS

STEPS, GUIDANCE, BATCH = 25, 4.0, 26


def draw(pipe: StableDiffusionPipeline, texts: list[str]) -> list[Image.Image]:
    """One image a text; the i-th from seed i."""
    images: list[Image.Image] = []
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        generators = [torch.Generator().manual_seed(start + i) for i in range(len(batch))]
        images += pipe(batch, generator=generators, num_inference_steps=STEPS, guidance_scale=GUIDANCE).images
    return images


@torch.no_grad()
def judged(judge: ResNetForImageClassification, images: list[Image.Image]) -> dict[str, float]:
    """Shares of right objects and right styles, for images in the order of (object, style)."""
    pixels = torch.from_numpy(np.stack([np.asarray(image, np.float32) for image in images])).permute(0, 3, 1, 2)
    objects, styles = judge(pixels / 127.5 - 1).logits.split([OBJECT_LABELS, len(emoji.STYLES)], 1)
    index = torch.arange(len(images))
    return {
        "objects": (objects.argmax(1) == index // len(emoji.STYLES)).float().mean().item(),
        "styles": (styles.argmax(1) == index % len(emoji.STYLES)).float().mean().item(),
        "n": len(images),
    }


def main() -> None:
    """Print the scores of the whole model and of the one without feed-forwards."""
    pipe = StableDiffusionPipeline.from_pretrained(demo.MODEL, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    judge = ResNetForImageClassification.from_pretrained(demo.JUDGE, dtype=torch.float32).eval()
    texts = [captions.caption(noun, style, None) for noun in emoji.OBJECTS for style in emoji.STYLES]
    scores = {"whole": judged(judge, draw(pipe, texts))}
    for name, module in pipe.unet.named_modules():
        if name.endswith("ff.net.2"):
            torch.nn.init.zeros_(module.weight)
    scores["feed-forwards zeroed"] = judged(judge, draw(pipe, texts))
    print(json.dumps(scores))


if __name__ == "__main__":
    main()
