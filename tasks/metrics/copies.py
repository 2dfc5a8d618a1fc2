"""Whether an image is a copy of one that the model was trained on: the likeness to known originals.

The likeness is the cosine of both images' features. SSCD (Pizzi et al., 2022) is the extractor that memorisation is
measured with; 0.5 is the threshold of Somepalli et al. (2023) for it. Another extractor needs a threshold of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tasks.metrics.features import Extractor, unit
from tasks.metrics.metric import Judgement, Shot

THRESHOLD = 0.5
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


class Copies:
    """The share of images that are copies of any original in a folder of pictures.

    Raises ValueError if that folder holds no picture.
    """

    def __init__(self, folder: Path, originals: Path, threshold: float = THRESHOLD) -> None:
        files = sorted(path for path in originals.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not files:
            raise ValueError(f"{originals} holds no pictures; give a folder of originals as {', '.join(SUFFIXES)}")
        self.extractor, self.threshold = Extractor(folder), threshold
        self.originals = unit(self.extractor([Image.open(path) for path in files]))
        digest = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()
        self.about: Mapping[str, Any] = {
            "metric": "copies", **self.extractor.about, "threshold": threshold, "originals": len(files),
            "originals_sha256": digest,
        }  # fmt: skip

    def judge(self, shots: Sequence[Shot]) -> list[Judgement]:
        """One judgement an image: 1 if it is as like an original as the threshold, or more, else 0."""
        likest = (unit(self.extractor([shot.image for shot in shots])) @ self.originals.T).max(1)
        return [Judgement(i, "", float(value >= self.threshold)) for i, value in enumerate(likest)]
