"""UNet2DConditionModel: Stable Diffusion 1.x and the like.

`ff.net.2` is the feed-forward's second Linear, fed by GEGLU: the paper's skilled neurons are its inputs.
"""

from tasks.diffusion.families.table import Family, SitePattern

UNET = Family(
    name="unet",
    component="unet",
    classes=("UNet2DConditionModel",),
    patterns=(SitePattern("ffn", r"\.ff\.net\.2$"),),
)
