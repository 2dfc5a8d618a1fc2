"""The key names of original checkpoints, as A1111 and ComfyUI read them: a Stable Diffusion 1, 2 or XL in one file.

Names are those of CompVis' latent-diffusion and Stability's generative-models, as the state dicts of their configs have
them (v1-inference.yaml, v2-inference-v.yaml, sd_xl_base.yaml). Only names: no torch, no bytes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

CLIP, OPEN_CLIP = "clip", "open-clip"
BUFFER = "embeddings.position_ids"  # 0, 1, 2 ...: some folders hold it, no reader needs it
# Component: (the prefix of its keys in the file, how its names are written)
LAYOUTS: dict[str, dict[str, tuple[str, str]]] = {
    "sd1": {
        "unet": ("model.diffusion_model.", "unet"),
        "vae": ("first_stage_model.", "vae"),
        "text_encoder": ("cond_stage_model.transformer.text_model.", CLIP),
    },
    "sd2": {
        "unet": ("model.diffusion_model.", "unet"),
        "vae": ("first_stage_model.", "vae"),
        "text_encoder": ("cond_stage_model.model.", OPEN_CLIP),
    },
    "sdxl": {
        "unet": ("model.diffusion_model.", "unet"),
        "vae": ("first_stage_model.", "vae"),
        "text_encoder": ("conditioner.embedders.0.transformer.text_model.", CLIP),
        "text_encoder_2": ("conditioner.embedders.1.model.", OPEN_CLIP),
    },
}

UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_ENDS = {"conv_in": "conv_in", "conv_norm_out": "norm_out", "conv_out": "conv_out"}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
VAE_ATTENTION |= {
    "query": "q",
    "key": "k",
    "value": "v",
    "proj_attn": "proj_out",
}  # as folders of before 2023 have them
PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
OPEN_CLIP_ENDS = {
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


@dataclass(frozen=True)
class Key:
    """One tensor of an original checkpoint, and the tensors of a pipeline's folder that it is made of."""

    name: str
    component: str
    parts: tuple[str, ...]  # tensors, whose rows follow one another
    convolution: bool = False  # [out, in] as [out, in, 1, 1]
    transposed: bool = False


def layout_of(index: Mapping[str, Any], text_encoder: Mapping[str, Any]) -> str:
    """The layout of a pipeline, from its model_index.json and its text encoder's config.

    Stable Diffusion 1 reads prompts with CLIP (quick_gelu), 2 with OpenCLIP (gelu). Raises ValueError for others.
    """
    if index["_class_name"] in PIPELINES and index["vae"][-1] != "AutoencoderKL":
        raise ValueError(
            f"the model's autoencoder is an {index['vae'][-1]}, and original checkpoints hold an AutoencoderKL; "
            "use another --form"
        )
    if index["_class_name"] == "StableDiffusionXLPipeline":
        return "sdxl"
    if index["_class_name"] == "StableDiffusionPipeline":
        return "sd1" if text_encoder.get("hidden_act") == "quick_gelu" else "sd2"
    raise ValueError(
        f"no original key names are known for {index['_class_name']}, only for Stable Diffusion 1, 2 and XL; "
        "give the file that the model came from with --original, or another --form"
    )


def original_keys(layout: str, tensors: Mapping[str, Iterable[str]], layers: int) -> list[Key]:
    """The keys of an original checkpoint for a pipeline's tensors, {component: names}.

    `layers` is the UNet's layers_per_block. Raises ValueError for a tensor that the layout has no place for.
    """
    keys = []
    for component, (prefix, how) in LAYOUTS[layout].items():
        names = sorted(tensors[component])
        writer = {"unet": lambda n: _unet(n, layers), "vae": _vae, CLIP: _clip, OPEN_CLIP: _open_clip}[how]
        keys += [Key(prefix + key.name, component, key.parts, key.convolution, key.transposed) for key in writer(names)]
    if twice := [name for name, count in Counter(key.name for key in keys).items() if count > 1]:
        raise ValueError(f"two tensors of the model have the original key {twice[0]}; use another --form")
    return keys


def _no_place(name: str) -> ValueError:
    return ValueError(f"{name} has no place in an original checkpoint of Stable Diffusion; use another --form")


def _unet(names: list[str], layers: int) -> Iterator[Key]:
    attended = {name.split(".")[1] for name in names if re.match(r"up_blocks\.\d+\.attentions\.", name)}
    for name in names:
        stem, _, end = name.rpartition(".")
        yield Key(f"{_unet_stem(stem, layers, attended)}.{end}", "unet", (name,))


def _unet_stem(stem: str, layers: int, attended: set[str]) -> str:
    """A module's name; blocks are counted through: one for each resnet, one for each downsampler."""
    if stem in UNET_ENDS:
        return UNET_ENDS[stem]
    if found := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", stem):
        kind, i, rest = found.groups()
        return f"middle_block.1.{rest}" if kind == "attentions" else f"middle_block.{2 * int(i)}.{_resnet(rest)}"
    if found := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", stem):
        way, block, kind, layer, rest = found.groups()
        number = int(block) * (layers + 1) + int(layer) + (way == "down")  # conv_in is input block 0
        part = f"1.{rest}" if kind == "attentions" else f"0.{_resnet(rest)}"
        return f"{'input' if way == 'down' else 'output'}_blocks.{number}.{part}"
    if found := re.fullmatch(r"down_blocks\.(\d+)\.downsamplers\.0\.conv", stem):
        return f"input_blocks.{(int(found[1]) + 1) * (layers + 1)}.0.op"
    if found := re.fullmatch(r"up_blocks\.(\d+)\.upsamplers\.0\.conv", stem):
        return f"output_blocks.{int(found[1]) * (layers + 1) + layers}.{2 if found[1] in attended else 1}.conv"
    raise _no_place(f"unet.{stem}")


def _resnet(module: str) -> str:
    if module not in UNET_RESNET:
        raise _no_place(f"a resnet's {module}")
    return UNET_RESNET[module]


def _vae(names: list[str]) -> Iterator[Key]:
    last = max(int(found[1]) for name in names if (found := re.match(r"decoder\.up_blocks\.(\d+)\.", name)))
    for name in names:
        stem, _, end = name.rpartition(".")
        convolution = end == "weight" and "mid_block.attentions" in stem and "group_norm" not in stem
        yield Key(f"{_vae_stem(stem, last)}.{end}", "vae", (name,), convolution)


def _vae_stem(stem: str, last: int) -> str:
    """A module's name; the decoder's blocks are counted from the image's end."""
    if stem in ("quant_conv", "post_quant_conv"):
        return stem
    half, _, rest = stem.partition(".")
    if rest in VAE_ENDS:
        return f"{half}.{VAE_ENDS[rest]}"
    if found := re.fullmatch(r"mid_block\.resnets\.(\d)\.(.+)", rest):
        return f"{half}.mid.block_{int(found[1]) + 1}.{_shortcut(found[2])}"
    if (found := re.fullmatch(r"mid_block\.attentions\.0\.(.+)", rest)) and found[1] in VAE_ATTENTION:
        return f"{half}.mid.attn_1.{VAE_ATTENTION[found[1]]}"
    if found := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets\.(\d+)\.(.+)|(down|up)samplers\.0\.conv)", rest):
        way, block, inner, layer, module, _ = found.groups()
        number = int(block) if way == "down" else last - int(block)
        part = f"block.{layer}.{_shortcut(module)}" if inner.startswith("resnets") else f"{way}sample.conv"
        return f"{half}.{way}.{number}.{part}"
    raise _no_place(f"vae.{stem}")


def _shortcut(module: str) -> str:
    return "nin_shortcut" if module == "conv_shortcut" else module


def _clip(names: list[str]) -> Iterator[Key]:
    for name in names:
        if not name.endswith(BUFFER):
            yield Key(name.removeprefix("text_model."), "text_encoder", (name,))


def _open_clip(names: list[str]) -> Iterator[Key]:
    for name in names:
        bare = name.removeprefix("text_model.")
        found = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", bare)
        if bare in OPEN_CLIP_ENDS:
            yield Key(OPEN_CLIP_ENDS[bare], "text_encoder", (name,))
        elif bare == "text_projection.weight":
            yield Key("text_projection", "text_encoder", (name,), transposed=True)
        elif found and found[2] in OPEN_CLIP_LAYER:
            yield Key(
                f"transformer.resblocks.{found[1]}.{OPEN_CLIP_LAYER[found[2]]}.{found[3]}", "text_encoder", (name,)
            )
        elif found and found[2] == "self_attn.q_proj":  # the query's, key's and value's rows are one tensor
            parts = tuple(name.replace(".q_proj.", f".{letter}_proj.") for letter in "qkv")
            yield Key(f"transformer.resblocks.{found[1]}.attn.in_proj_{found[3]}", "text_encoder", parts)
        elif not (found and found[2] in ("self_attn.k_proj", "self_attn.v_proj")) and bare != BUFFER:
            raise _no_place(f"text_encoder.{name}")
