"""Single-file checkpoints in miniature: Stable Diffusion 1, 2 and XL of random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from tasks.single_files import write_original
from tests import families, tiny

LAYOUTS = ("sd1", "sd2", "sdxl")
WIDE = 48  # of SDXL's second text encoder: readers tell it from the first by its width


def build(layout: str) -> Any:
    """A pipeline with all that an original checkpoint holds."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe = families.build(layout)
        pipe.register_modules(vae=_autoencoder())
        if layout == "sdxl":
            pipe.register_modules(text_encoder_2=_wide_encoder(), unet=_wide_unet())
    return pipe


def save(layout: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Saves such a pipeline; returns its folder."""
    build(layout).to(dtype).save_pretrained(folder)
    return folder


def write(folder: Path, file: Path) -> Path:
    """The checkpoint of a pipeline's folder; returns the file."""
    write_original(folder, {}, None, file, {"format": "pt", "modelspec.title": "a checkpoint of somebody's"})
    return file


def open_with_diffusers(file: Path, configs: Path) -> Any:
    """As a user of diffusers opens a single file."""
    index = diffusers.DiffusionPipeline.load_config(configs)
    kind = getattr(diffusers, index["_class_name"])
    checker = {} if "XL" in index["_class_name"] else {"safety_checker": None, "requires_safety_checker": False}
    pipe = kind.from_single_file(str(file), config=str(configs), local_files_only=True, **checker)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(4, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, norm_num_groups=2, layers_per_block=1,
    ).eval()  # fmt: skip


def _wide_encoder() -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=families.VOCABULARY, hidden_size=WIDE, intermediate_size=64, projection_dim=families.WIDTH,
        num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=tiny.MAX_TOKENS, hidden_act="gelu",
        bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    return CLIPTextModelWithProjection(config).eval()


def _wide_unet() -> Any:
    return families.unet(
        transformer_layers_per_block=(1, 2), use_linear_projection=True, attention_head_dim=(2, 4),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=families.WIDTH + WIDE, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + families.WIDTH,
    )  # fmt: skip
