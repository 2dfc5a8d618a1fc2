"""The table of model families: where each architecture keeps its neuron sites.

A new architecture is a small file with rows, and one more name in `FAMILIES`.
"""

from tasks.diffusion.families.table import Family, SitePattern
from tasks.diffusion.families.unet import UNET

FAMILIES: tuple[Family, ...] = (UNET,)

__all__ = ["FAMILIES", "Family", "SitePattern"]
