"""Images as a page embeds them: in a data: URL, no larger than it shows them."""

from __future__ import annotations

import base64
import io

from PIL import Image

from tasks.pages.page import Picture

SIDE = 384  # px, the longer side of an image in a gallery
THUMBNAIL = 128  # px, in an index
PIXELS = 160  # px; up to here an image is kept exact and enlarged without smoothing
QUALITY = 82  # of a larger one


def picture(png: bytes, side: int = SIDE) -> Picture:
    """An image of a PNG's bytes: small ones exactly as they are, larger ones scaled down, both as WebP."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    small = max(image.size) <= PIXELS
    if not small:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=small, quality=80 if small else QUALITY, method=4)
    url = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return Picture(url, image.width, image.height, small)
