"""The table of model families: where each architecture keeps its neuron sites.

A new architecture is a small file with rows, and one more name in `FAMILIES`; docs/adding-a-model.md goes through one.
"""

from tasks.diffusion.families.flux import FLUX
from tasks.diffusion.families.pixart import PIXART
from tasks.diffusion.families.sd3 import SD3
from tasks.diffusion.families.table import Family, SitePattern
from tasks.diffusion.families.text_encoders import TEXT_PATTERNS
from tasks.diffusion.families.unet import UNET

FAMILIES: tuple[Family, ...] = (UNET, SD3, FLUX, PIXART)

__all__ = ["FAMILIES", "TEXT_PATTERNS", "Family", "SitePattern"]
