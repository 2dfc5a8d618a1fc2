"""The shapes of the bundled model's untrained parts: Stable Diffusion's, small.

Concepts are to live in the feed-forwards, as they do in the large models (docs/decisions/002-bundled-model.md): so
convolutions are narrow, text enters at 4 x 4 only, and each of the four places there has three transformer layers.
"""

from __future__ import annotations

from diffusers import DDIMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from demo.training import captions

WIDTH = 128  # text encoder and cross-attention
MAX_TOKENS = 16
CHANNELS = (64, 160)
LAYERS = 3  # transformer layers a block


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the captions' words, padded with the end token as CLIP's is."""
    vocabulary = {word: i for i, word in enumerate(["<|startoftext|>", "<|endoftext|>", "<unk>", *captions.words()])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        special_tokens=[("<|startoftext|>", 0), ("<|endoftext|>", 1)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<unk>",
        pad_token="<|endoftext|>",
        model_max_length=MAX_TOKENS,
    )


def build_text_encoder(vocabulary: int) -> CLIPTextModel:
    """An untrained CLIP text encoder of 3 layers."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def build_unet(latent_channels: int, conv_dropout: float = 0.0, ff_dropout: float = 0.0) -> UNet2DConditionModel:
    """An untrained UNet: convolutions alone at 8 x 8, convolutions and deep transformers at 4 x 4.

    In training it drops shares of the convolutions' features and of the feed-forwards' hidden neurons.
    """
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        transformer_layers_per_block=LAYERS,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        dropout=conv_dropout,
    )
    for name, module in unet.named_modules():
        if name.endswith("ff.net.1"):
            module.p = ff_dropout
    return unet


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
