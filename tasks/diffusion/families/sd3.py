"""SD3Transformer2DModel: Stable Diffusion 3 and 3.5, an MMDiT.

Every block has a feed-forward for the image (`ff`) and, but for the last, one for the text (`ff_context`). Keys and
values see hidden states of either stream, the text's by `add_k_proj` and `add_v_proj`: they change with step and block.
`attn2`, in SD 3.5 medium, is a second attention of the image to itself.
"""

from tasks.diffusion.families.table import Family, SitePattern

SD3 = Family(
    name="sd3",
    component="transformer",
    classes=("SD3Transformer2DModel",),
    patterns=(
        SitePattern("ffn", r"\.ff(_context)?\.net\.2$"),
        SitePattern("ffn_in", r"\.ff(_context)?\.net\.0\.proj$"),
        SitePattern("attn_k", r"\.attn2?\.(to_k|add_k_proj)$"),
        SitePattern("attn_v", r"\.attn2?\.(to_v|add_v_proj)$"),
    ),
)
