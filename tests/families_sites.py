"""The sites of every family in tests/families.py, by hand, from the classes' printed modules."""

from __future__ import annotations

from collections.abc import Sequence

UNET_BLOCKS = ["down_blocks.0.attentions.0", "mid_block.attentions.0", "up_blocks.1.attentions.0",
               "up_blocks.1.attentions.1"]  # fmt: skip
SDXL_BLOCKS = ["down_blocks.1.attentions.0", "mid_block.attentions.0", "up_blocks.0.attentions.0",
               "up_blocks.0.attentions.1"]  # fmt: skip
CLIP = ["encoder.layers.0.mlp.fc2", "encoder.layers.1.mlp.fc2"]
PROJECTED = [f"text_model.{name}" for name in CLIP]
T5 = ["encoder.block.0.layer.1.DenseReluDense.wo", "encoder.block.1.layer.1.DenseReluDense.wo"]
FEED = {"ffn": "ff.net.2", "ffn_in": "ff.net.0.proj"}
CROSS = {**FEED, "attn_k": "attn2.to_k", "attn_v": "attn2.to_v"}


def named(component: str, *names: str) -> list[str]:
    return [f"{component}.{name}" for name in names]


def in_blocks(component: str, blocks: Sequence[str], kinds: dict[str, str]) -> dict[str, list[str]]:
    return {kind: [f"{component}.{block}.{module}" for block in blocks] for kind, module in kinds.items()}


EXPECTED: dict[str, dict[str, list[str]]] = {
    "sd1": in_blocks("unet", [f"{block}.transformer_blocks.0" for block in UNET_BLOCKS], CROSS)
    | {"text": named("text_encoder", *CLIP)},
    "sd2": in_blocks("unet", [f"{block}.transformer_blocks.0" for block in UNET_BLOCKS], CROSS)
    | {"text": named("text_encoder", *CLIP)},
    "sdxl": in_blocks("unet", [f"{block}.transformer_blocks.{i}" for block in SDXL_BLOCKS for i in (0, 1)], CROSS)
    | {"text": [*named("text_encoder", *CLIP), *named("text_encoder_2", *PROJECTED)]},
    "pixart": in_blocks("transformer", ["transformer_blocks.0", "transformer_blocks.1"], CROSS)
    | {"text": named("text_encoder", *T5)},
    "sd3": {
        "ffn": named("transformer", "transformer_blocks.0.ff.net.2", "transformer_blocks.0.ff_context.net.2",
                     "transformer_blocks.1.ff.net.2"),
        "ffn_in": named("transformer", "transformer_blocks.0.ff.net.0.proj",
                        "transformer_blocks.0.ff_context.net.0.proj", "transformer_blocks.1.ff.net.0.proj"),
        "attn_k": named("transformer", "transformer_blocks.0.attn.to_k", "transformer_blocks.0.attn.add_k_proj",
                        "transformer_blocks.0.attn2.to_k", "transformer_blocks.1.attn.to_k",
                        "transformer_blocks.1.attn.add_k_proj"),
        "attn_v": named("transformer", "transformer_blocks.0.attn.to_v", "transformer_blocks.0.attn.add_v_proj",
                        "transformer_blocks.0.attn2.to_v", "transformer_blocks.1.attn.to_v",
                        "transformer_blocks.1.attn.add_v_proj"),
        "text": [*named("text_encoder", *PROJECTED), *named("text_encoder_2", *PROJECTED),
                 *named("text_encoder_3", *T5)],
    },
    "flux": {
        "ffn": named("transformer", *(f"transformer_blocks.{i}.{ff}.net.2" for i in (0, 1)
                                      for ff in ("ff", "ff_context")),
                     *(f"single_transformer_blocks.{i}.proj_out" for i in (0, 1))),
        "ffn_in": named("transformer", *(f"transformer_blocks.{i}.{ff}.net.0.proj" for i in (0, 1)
                                         for ff in ("ff", "ff_context")),
                        *(f"single_transformer_blocks.{i}.proj_mlp" for i in (0, 1))),
        "attn_k": named("transformer", *(f"transformer_blocks.{i}.attn.{k}" for i in (0, 1)
                                         for k in ("to_k", "add_k_proj")),
                        *(f"single_transformer_blocks.{i}.attn.to_k" for i in (0, 1))),
        "attn_v": named("transformer", *(f"transformer_blocks.{i}.attn.{v}" for i in (0, 1)
                                         for v in ("to_v", "add_v_proj")),
                        *(f"single_transformer_blocks.{i}.attn.to_v" for i in (0, 1))),
        "text": [*named("text_encoder", *CLIP), *named("text_encoder_2", *T5)],
    },
}  # fmt: skip
