"""A pipeline of every family in miniature: the real diffusers classes, random weights, the same for the same seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from tests import tiny

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULERS: dict[str, Callable[[str], Any]] = {
    "pndm": lambda predicts: PNDMScheduler(**BETAS, skip_prk_steps=True, prediction_type=predicts, steps_offset=1),
    "ddim": lambda predicts: DDIMScheduler(
        **BETAS, clip_sample=False, set_alpha_to_one=False, prediction_type=predicts, steps_offset=1
    ),
    "euler": lambda predicts: EulerDiscreteScheduler(**BETAS, prediction_type=predicts, steps_offset=1),
    "dpm": lambda predicts: DPMSolverMultistepScheduler(**BETAS, prediction_type=predicts, steps_offset=1),
    "flow": lambda predicts: FlowMatchEulerDiscreteScheduler(shift=3.0),
    "flow-shifted": lambda predicts: FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
}
VOCABULARY = 3 + len(tiny.WORDS)
WIDTH = 32  # of the text embedding, and of transformers


def clip(kind: type = CLIPTextModel, act: str = "quick_gelu", layers: int = 2, pad: int = 1) -> Any:
    """CLIP's text encoder; OpenCLIP's is the same class with another activation and padding token."""
    return kind(
        CLIPTextConfig(
            vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=48, projection_dim=WIDTH,
            num_hidden_layers=layers, num_attention_heads=2, max_position_embeddings=tiny.MAX_TOKENS,
            hidden_act=act, bos_token_id=0, eos_token_id=1, pad_token_id=pad,
        )
    ).eval()  # fmt: skip


def t5() -> T5EncoderModel:
    config = T5Config(
        vocab_size=VOCABULARY, d_model=WIDTH, d_ff=40, d_kv=16, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu", pad_token_id=2, eos_token_id=1,
    )  # fmt: skip
    return T5EncoderModel(config).eval()


def tokenizer(pad: str = "<end>") -> PreTrainedTokenizerFast:
    made = tiny.tokenizer()
    made.pad_token = pad
    return made


def unet(**options: Any) -> UNet2DConditionModel:
    shape = {
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (8, 16), "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "norm_num_groups": 4, "cross_attention_dim": WIDTH, "attention_head_dim": 2,
    }  # fmt: skip
    return UNet2DConditionModel(**{**shape, **options}).eval()


def sd1(scheduler: str = "pndm", layers: int = 1) -> Any:
    return StableDiffusionPipeline(
        vae=tiny.autoencoder(), text_encoder=clip(), tokenizer=tokenizer(),
        unet=unet(transformer_layers_per_block=layers), scheduler=SCHEDULERS[scheduler]("epsilon"),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sd2(scheduler: str = "ddim", layers: int = 1) -> Any:
    return StableDiffusionPipeline(
        vae=tiny.autoencoder(), text_encoder=clip(act="gelu", pad=2), tokenizer=tokenizer("<unk>"),
        unet=unet(transformer_layers_per_block=layers, use_linear_projection=True, attention_head_dim=(2, 4)),
        scheduler=SCHEDULERS[scheduler]("v_prediction"),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl(scheduler: str = "euler", layers: int = 2) -> Any:
    denoiser = unet(
        transformer_layers_per_block=(1, layers), use_linear_projection=True, attention_head_dim=(2, 4),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=2 * WIDTH, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=tiny.autoencoder(), text_encoder=clip(), text_encoder_2=clip(CLIPTextModelWithProjection, "gelu", pad=2),
        tokenizer=tokenizer(), tokenizer_2=tokenizer("<unk>"), unet=denoiser,
        scheduler=SCHEDULERS[scheduler]("epsilon"), add_watermarker=False,
    )  # fmt: skip


def sd3(scheduler: str = "flow", layers: int = 2) -> Any:
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=layers, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=2 * WIDTH, caption_projection_dim=WIDTH,
        pooled_projection_dim=2 * WIDTH, pos_embed_max_size=16, dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )  # fmt: skip
    # T5's width is that of the joint attention: CLIP's two are joined and padded to it.
    config = T5Config(
        vocab_size=VOCABULARY, d_model=2 * WIDTH, d_ff=40, d_kv=16, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu", pad_token_id=2, eos_token_id=1,
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=transformer.eval(), scheduler=SCHEDULERS[scheduler](""), vae=autoencoder_kl(4),
        text_encoder=clip(CLIPTextModelWithProjection), tokenizer=tokenizer(),
        text_encoder_2=clip(CLIPTextModelWithProjection, "gelu", pad=2), tokenizer_2=tokenizer("<unk>"),
        text_encoder_3=T5EncoderModel(config).eval(), tokenizer_3=tokenizer("<unk>"),
    )  # fmt: skip


def flux(scheduler: str = "flow-shifted", layers: int = 2) -> Any:
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=layers, num_single_layers=layers, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )  # fmt: skip
    return FluxPipeline(
        scheduler=SCHEDULERS[scheduler](""), vae=autoencoder_kl(4), text_encoder=clip(), tokenizer=tokenizer(),
        text_encoder_2=t5(), tokenizer_2=tokenizer("<unk>"), transformer=transformer.eval(),
    )  # fmt: skip


def pixart(scheduler: str = "dpm", layers: int = 2) -> Any:
    transformer = PixArtTransformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=8, num_layers=layers, attention_head_dim=8,
        num_attention_heads=3, caption_channels=WIDTH, cross_attention_dim=24, norm_type="ada_norm_single",
        use_additional_conditions=False,
    )  # fmt: skip
    return PixArtAlphaPipeline(
        tokenizer=tokenizer("<unk>"), text_encoder=t5(), vae=autoencoder_kl(4), transformer=transformer.eval(),
        scheduler=SCHEDULERS[scheduler]("epsilon"),
    )  # fmt: skip


def autoencoder_kl(channels: int) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(4, 4, 4, 4), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=channels, norm_num_groups=2, layers_per_block=1,
        use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.0,
    ).eval()  # fmt: skip


FAMILIES: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {  # and the schedulers that it is run with
    "sd1": (sd1, ("pndm", "ddim", "euler", "dpm")),
    "sd2": (sd2, ("ddim", "pndm", "euler", "dpm")),
    "sdxl": (sdxl, ("euler", "ddim", "dpm")),
    "sd3": (sd3, ("flow", "flow-shifted")),
    "flux": (flux, ("flow-shifted", "flow")),
    "pixart": (pixart, ("dpm", "ddim")),
}


def build(family: str, scheduler: str | None = None, seed: int = 0, **options: Any) -> Any:
    """A family's pipeline: the same for the same seed."""
    make, schedulers = FAMILIES[family]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipe = make(scheduler or schedulers[0], **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe
