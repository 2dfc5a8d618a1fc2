"""The key names of original checkpoints: of the real models' sizes, against diffusers' own converters and the known
numbers of keys."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils as diffusers_converters
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tasks.diffusion.layouts import layout_of, original_keys

SDXL_UNET = {
    "sample_size": 128, "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "use_linear_projection": True,
    "transformer_layers_per_block": (1, 2, 10), "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
SD2_UNET = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
UNETS: dict[str, dict[str, Any]] = {"sd1": {"cross_attention_dim": 768}, "sd2": SD2_UNET, "sdxl": SDXL_UNET}
VAE = {
    "block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4, "layers_per_block": 2, "latent_channels": 4,
}  # fmt: skip
CLIP_L = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
VIT_H = {"hidden_size": 1024, "num_hidden_layers": 23, "num_attention_heads": 16, "intermediate_size": 4096}
BIG_G = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20, "intermediate_size": 5120}
# What the published checkpoints hold, but for buffers (position_ids, logit_scale) and SD 2's last text layer, which no
# pipeline reads: v1-5-pruned-emaonly 1,131 keys, sd_xl_base_1.0 2,515.
COUNTS = {"sd1": 686 + 248 + 196, "sd2": 686 + 248 + 280, "sdxl": 1680 + 248 + 196 + 389}
KNOWN = {
    "sd1": [
        "model.diffusion_model.time_embed.0.weight",
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.ff.net.2.weight",
        "model.diffusion_model.input_blocks.3.0.op.weight",
        "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight",
        "model.diffusion_model.output_blocks.2.1.conv.weight",
        "model.diffusion_model.output_blocks.5.2.conv.bias",
        "model.diffusion_model.output_blocks.11.0.skip_connection.weight",
        "model.diffusion_model.out.2.bias",
        "first_stage_model.encoder.down.1.block.0.nin_shortcut.weight",
        "first_stage_model.decoder.up.3.block.2.conv1.weight",
        "first_stage_model.decoder.up.1.upsample.conv.weight",
        "first_stage_model.encoder.mid.attn_1.proj_out.weight",
        "first_stage_model.post_quant_conv.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.11.mlp.fc2.weight",
    ],
    "sd2": [
        "cond_stage_model.model.positional_embedding",
        "cond_stage_model.model.transformer.resblocks.22.attn.in_proj_weight",
        "cond_stage_model.model.transformer.resblocks.0.mlp.c_proj.bias",
        "cond_stage_model.model.ln_final.weight",
    ],
    "sdxl": [
        "model.diffusion_model.label_emb.0.0.weight",
        "model.diffusion_model.output_blocks.5.1.transformer_blocks.1.attn1.to_out.0.bias",
        "model.diffusion_model.output_blocks.2.2.conv.weight",
        "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight",
        "conditioner.embedders.1.model.text_projection",
        "conditioner.embedders.1.model.transformer.resblocks.31.ln_2.weight",
    ],
}


def components(layout: str) -> dict[str, Any]:
    """The modules of a real model's size, without memory."""
    with init_empty_weights():
        unet, vae = UNet2DConditionModel(**UNETS[layout]), AutoencoderKL(**VAE)
        shape = VIT_H if layout == "sd2" else CLIP_L
        modules = {"unet": unet, "vae": vae, "text_encoder": CLIPTextModel(CLIPTextConfig(**shape))}
        if layout == "sdxl":
            modules["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig(**BIG_G, projection_dim=1280))
    return modules


@pytest.mark.parametrize("layout", COUNTS)
def test_the_keys_are_those_of_the_published_checkpoints(layout: str) -> None:
    modules = components(layout)
    state = {name: dict(module.named_parameters()) for name, module in modules.items()}
    keys = original_keys(layout, state, 2)
    names = [key.name for key in keys]
    assert len(names) == len(set(names)) == COUNTS[layout]
    assert set(KNOWN["sd1"][:5]) <= set(names) or layout == "sdxl"  # SDXL has no attention in its first blocks
    assert set(KNOWN[layout]) <= set(names)
    used = [(key.component, part) for key in keys for part in key.parts]
    assert sorted(used) == sorted((component, name) for component in state for name in state[component])

    file = {}
    for key in keys:
        parts = [state[key.component][part] for part in key.parts]
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        whole = whole.T if key.transposed else whole
        file[key.name] = whole[:, :, None, None] if key.convolution else whole
    unet = diffusers_converters.convert_ldm_unet_checkpoint(dict(file), dict(modules["unet"].config))
    vae = diffusers_converters.convert_ldm_vae_checkpoint(dict(file), dict(modules["vae"].config))
    for found, wanted in ((unet, state["unet"]), (vae, state["vae"])):
        assert {name: tensor.shape for name, tensor in found.items()} == {name: t.shape for name, t in wanted.items()}


def test_old_names_of_the_autoencoders_attention_have_the_same_keys() -> None:
    names = ["query.weight", "key.bias", "value.weight", "proj_attn.weight", "group_norm.weight"]
    old = [f"decoder.mid_block.attentions.0.{name}" for name in names]
    tensors = {"unet": [], "vae": [*old, "decoder.up_blocks.3.resnets.0.conv1.weight"], "text_encoder": []}
    found = {
        key.name.removeprefix("first_stage_model.decoder."): key.convolution for key in original_keys("sd1", tensors, 2)
    }
    assert found == {
        "mid.attn_1.q.weight": True, "mid.attn_1.k.bias": False, "mid.attn_1.v.weight": True,
        "mid.attn_1.proj_out.weight": True, "mid.attn_1.norm.weight": False, "up.0.block.0.conv1.weight": False,
    }  # fmt: skip


def test_what_has_no_place_is_refused() -> None:
    tensors = {
        "unet": ["controlnet.conv.weight"],
        "vae": ["decoder.up_blocks.0.resnets.0.conv1.weight"],
        "text_encoder": [],
    }
    with pytest.raises(ValueError, match=r"unet.controlnet.conv has no place in an original checkpoint"):
        original_keys("sd1", tensors, 2)
    tensors["unet"] = ["mid_block.resnets.0.lora.weight"]
    with pytest.raises(ValueError, match=r"a resnet's lora has no place in an original checkpoint"):
        original_keys("sd1", tensors, 2)
    tensors["unet"] = [f"mid_block.attentions.{i}.norm.weight" for i in (0, 1)]
    with pytest.raises(
        ValueError, match=r"two tensors of the model have the original key model\.diffusion_model\.middle"
    ):
        original_keys("sd1", tensors, 2)
    tiny = {"_class_name": "StableDiffusionPipeline", "vae": ["diffusers", "AutoencoderTiny"]}
    with pytest.raises(ValueError, match=r"autoencoder is an AutoencoderTiny, and original checkpoints hold an"):
        layout_of(tiny, {})
    with pytest.raises(ValueError, match=r"no original key names are known for FluxPipeline, only .*--original"):
        layout_of({"_class_name": "FluxPipeline"}, {})
