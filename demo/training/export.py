"""Writes the trained parts as the pipeline that ships: fp16 safetensors that diffusers loads by from_pretrained."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline

from demo.training.denoiser import Training
from demo.training.shapes import build_scheduler, build_text_encoder, build_tokenizer, build_unet


def pipeline(training: Training, vae: AutoencoderTiny) -> StableDiffusionPipeline:
    """The pipeline of a training's averaged weights, without the training's dropout."""
    unet = build_unet(training.latents.shape[-3])
    text_encoder = build_text_encoder(len(training.tokenizer))
    averaged_unet, averaged_text_encoder = training.ema
    unet.load_state_dict(averaged_unet.state_dict())
    text_encoder.load_state_dict(averaged_text_encoder.state_dict())
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder.eval(),
        tokenizer=build_tokenizer(),  # the training's own has kept its padding
        unet=unet.eval(),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save(pipe: StableDiffusionPipeline, folder: Path) -> None:
    """Save a pipeline in half precision, without the names of this machine's folders in its configs."""
    pipe.to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)
    for path in folder.rglob("config.json"):
        config = json.loads(path.read_text("utf-8"))
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
