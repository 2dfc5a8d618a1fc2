"""UNet2DConditionModel: Stable Diffusion 1.x, 2.x and XL.

`ff.net.2` is the feed-forward's second Linear, fed by GEGLU: the paper's skilled neurons are its inputs. `attn2`
attends to the prompt: its keys and values read the same embedding in every block and at every step.
"""

from tasks.diffusion.families.table import Family, SitePattern

UNET = Family(
    name="unet",
    component="unet",
    classes=("UNet2DConditionModel",),
    patterns=(
        SitePattern("ffn", r"\.ff\.net\.2$"),
        SitePattern("ffn_in", r"\.ff\.net\.0\.proj$"),
        SitePattern("attn_k", r"\.attn2\.to_k$", embedding=True),
        SitePattern("attn_v", r"\.attn2\.to_v$", embedding=True),
    ),
)
