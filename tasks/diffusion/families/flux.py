"""FluxTransformer2DModel: Flux, an MMDiT of double and single blocks, with its guidance distilled.

A double block has a feed-forward for the image (`ff`) and one for the text (`ff_context`). A single block runs both
streams through one: its `proj_out` takes the attention's outputs, as many as it has rows, and after them the neurons.
"""

from tasks.diffusion.families.table import Family, SitePattern

FLUX = Family(
    name="flux",
    component="transformer",
    classes=("FluxTransformer2DModel",),
    patterns=(
        SitePattern("ffn", r"^transformer_blocks\.\d+\.ff(_context)?\.net\.2$"),
        SitePattern("ffn", r"^single_transformer_blocks\.\d+\.proj_out$", after_rows=True),
        SitePattern("ffn_in", r"^transformer_blocks\.\d+\.ff(_context)?\.net\.0\.proj$"),
        SitePattern("ffn_in", r"^single_transformer_blocks\.\d+\.proj_mlp$"),
        SitePattern("attn_k", r"\.attn\.(to_k|add_k_proj)$"),
        SitePattern("attn_v", r"\.attn\.(to_v|add_v_proj)$"),
    ),
    halves=False,
)
