"""The sites of every family at the real model's size: headers as the published models have them, without the bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import FluxTransformer2DModel, PixArtTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel

from tasks.diffusion.headers import read_sites
from tests.test_diffusion_layouts import UNETS

pytestmark = pytest.mark.families

# The configs of stable-diffusion-3-medium, FLUX.1-dev and PixArt-XL-2; those of Stable Diffusion 1, 2 and XL are UNETS.
DENOISERS: dict[str, tuple[type, dict[str, Any]]] = {
    **{family: (UNet2DConditionModel, config) for family, config in UNETS.items()},
    "sd3": (
        SD3Transformer2DModel,
        {"num_layers": 24, "attention_head_dim": 64, "num_attention_heads": 24, "joint_attention_dim": 4096,
         "caption_projection_dim": 1536, "pooled_projection_dim": 2048, "pos_embed_max_size": 192},
    ),
    "flux": (FluxTransformer2DModel, {"guidance_embeds": True}),
    "pixart": (PixArtTransformer2DModel, {"caption_channels": 4096}),
}  # fmt: skip
# Sites, neurons and weights of the kind ffn. Stable Diffusion 1's and XL's are known from elsewhere: 16 sites of 49,920
# neurons and 49.56 M weights, 70 sites of 332,800 neurons. The others are counted by hand from their configs.
FFN = {
    "sd1": (16, 49_920, 49_561_600),
    "sd2": (16, 49_920, 49_561_600),
    "sdxl": (70, 332_800, 60 * 5120 * 1280 + 10 * 2560 * 640),
    "sd3": (24 + 23, 47 * 6144, 47 * 6144 * 1536),  # the last block has none for the text
    "flux": (19 * 2 + 38, 76 * 12_288, 76 * 12_288 * 3072),
    "pixart": (28, 28 * 4608, 28 * 4608 * 1152),
}


def write_header(file: Path, state: Mapping[str, torch.Tensor]) -> None:
    """A safetensors file of the tensors' names and shapes in float16, with a hole where their bytes would be."""
    header, end = {}, 0
    for name, tensor in state.items():
        start, end = end, end + 2 * math.prod(tensor.shape)
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    head = json.dumps(header).encode()
    with file.open("wb") as opened:
        opened.write(len(head).to_bytes(8, "little") + head)
        opened.truncate(8 + len(head) + end)


@pytest.mark.parametrize("family", DENOISERS)
def test_sites_at_the_real_models_size(family: str, tmp_path: Path) -> None:
    kind, config = DENOISERS[family]
    with init_empty_weights():
        model = kind(**config)
    component = "unet" if kind is UNet2DConditionModel else "transformer"
    (tmp_path / component).mkdir()
    write_header(tmp_path / component / "diffusion_pytorch_model.safetensors", dict(model.named_parameters()))
    (tmp_path / "model_index.json").write_text(json.dumps({component: ["diffusers", kind.__name__]}), "utf-8")
    sites = read_sites(tmp_path, ("ffn",))
    assert (len(sites), sum(site.width for site in sites), sum(site.width * site.rows for site in sites)) == FFN[family]
    modules = dict(model.named_modules())
    for site in read_sites(tmp_path, ("ffn", "ffn_in", "attn_k", "attn_v")):
        module = modules[site.module]
        assert (site.rows, site.inputs) == (module.out_features, module.in_features)
