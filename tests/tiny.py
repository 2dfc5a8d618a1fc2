"""A Stable Diffusion in miniature with random weights: what the tests of the diffusion room run and observe.

It draws 32 px noise, but it is built of the classes that real pipelines are built of, and saved as they are.
"""

import re
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from tasks.diffusion.spec import NeuronSite

SCHEDULERS = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler, "pndm": PNDMScheduler}
WORDS = ["a", "an", "apple", "cat", "dog", "fox", "in", "of", "photo", "rose", "style", "the"]
WIDTH = 8  # text encoder and cross-attention
MAX_TOKENS = 8


def build(scheduler: str = "ddim", layers: int = 1, seed: int = 0) -> StableDiffusionPipeline:
    """The pipeline: 4 transformers (1 down, 1 mid, 2 up) of `layers` layers each, the same for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        pipe = StableDiffusionPipeline(
            vae=autoencoder(),
            text_encoder=_text_encoder().eval(),
            tokenizer=tokenizer(),
            unet=_unet(layers).eval(),
            scheduler=_scheduler(scheduler),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save(folder: Path, **options: Any) -> Path:
    """Build a pipeline and save it to `folder`, which is returned."""
    build(**options).save_pretrained(folder)
    return folder


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["<start>", "<end>", "<unk>", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<start>",
        eos_token="<end>",
        unk_token="<unk>",
        pad_token="<end>",
        model_max_length=MAX_TOKENS,
    )


def _text_encoder() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=3 + len(WORDS),
            hidden_size=WIDTH,
            intermediate_size=16,
            projection_dim=WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def _unet(layers: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=layers,
        norm_num_groups=4,
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
    )


def autoencoder() -> AutoencoderTiny:
    return AutoencoderTiny(
        encoder_block_out_channels=(4, 4, 4),
        decoder_block_out_channels=(4, 4, 4),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        latent_channels=4,
    )


def _scheduler(name: str) -> Any:
    options = {"clip_sample": False, "set_alpha_to_one": False} if name == "ddim" else {}
    if name == "pndm":
        options = {"skip_prk_steps": True, "set_alpha_to_one": False}
    return SCHEDULERS[name](
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, **options
    )


def sites(pipe: Any, pattern: str = r"\.ff\.net\.2$") -> list[NeuronSite]:
    """The feed-forward sites of a loaded pipeline, by name, as its modules have them."""
    found = ((name, module) for name, module in pipe.unet.named_modules() if re.search(pattern, name))
    return sorted(NeuronSite(f"unet.{name}", "ffn", m.in_features, m.out_features) for name, m in found)


def hooks(pipe: Any) -> int:
    """How many forward hooks the pipeline's modules carry."""
    modules = [module for model in (pipe.unet, pipe.vae, pipe.text_encoder) for module in model.modules()]
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)
