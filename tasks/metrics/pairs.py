"""How much an image changes: the distance of what is drawn before and after, from the same prompt and seed.

With DINOv2 as the extractor this is the DINO distance of the editing literature; 0 is the same image, 1 an unrelated
one, 2 the opposite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tasks.metrics.features import Extractor, unit


class Change:
    """One minus the cosine of both images' features."""

    def __init__(self, folder: Path) -> None:
        self.extractor = Extractor(folder)
        self.about: Mapping[str, Any] = {"metric": "change", **self.extractor.about}

    def compare(self, before: Sequence[Image.Image], after: Sequence[Image.Image]) -> NDArray[np.float64]:
        """One value a pair, 0 to 2: [pair]."""
        found: NDArray[np.float64] = 1 - (unit(self.extractor(before)) * unit(self.extractor(after))).sum(1)
        return found
