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

from tasks.metrics.features import Extractor


class Change:
    """One minus the cosine of both images' features."""

    def __init__(self, folder: Path) -> None:
        self.extractor = Extractor(folder)
        self.about: Mapping[str, Any] = {"metric": "change", **self.extractor.about}

    def compare(self, before: Sequence[Image.Image], after: Sequence[Image.Image]) -> NDArray[np.float64]:
        """One value a pair, 0 to 2: [pair]."""
        one, other = self.extractor(before), self.extractor(after)
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        found: NDArray[np.float64] = 1 - (one * other).sum(1) / lengths
        return found
