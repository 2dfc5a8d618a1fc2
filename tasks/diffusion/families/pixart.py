"""PixArtTransformer2DModel: PixArt-alpha and -sigma, a DiT.

`attn2` attends to the prompt: its keys and values read the same projected embedding in every block and at every step.
"""

from tasks.diffusion.families.table import Family, SitePattern

PIXART = Family(
    name="pixart",
    component="transformer",
    classes=("PixArtTransformer2DModel",),
    patterns=(
        SitePattern("ffn", r"\.ff\.net\.2$"),
        SitePattern("ffn_in", r"\.ff\.net\.0\.proj$"),
        SitePattern("attn_k", r"\.attn2\.to_k$", embedding=True),
        SitePattern("attn_v", r"\.attn2\.to_v$", embedding=True),
    ),
)
