"""Contact sheets: images before and after an edit, side by side, drawn from the same seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

MARGIN = 8
GAP = 2
TILE = 96  # px, smallest side that an image is enlarged to
CAPTION = 34  # px under each pair


@dataclass(frozen=True)
class Pair:
    """One prompt's image before and after."""

    text: str
    before: Image.Image
    after: Image.Image


def contact_sheet(title: str, sections: Sequence[tuple[str, Sequence[Pair]]], columns: int = 5) -> Image.Image:
    """Rows of (before | after) pairs, a heading over each section. Small images are enlarged without smoothing."""
    font, small = ImageFont.load_default(size=15), ImageFont.load_default(size=10)
    side = max([TILE, *(pair.before.width for _, pairs in sections for pair in pairs)])
    cell = 2 * side + GAP + MARGIN
    rows = [(heading, pairs[start : start + columns] if pairs else [], start == 0)
            for heading, pairs in sections for start in range(0, max(len(pairs), 1), columns)]  # fmt: skip
    height = 40 + sum(side + CAPTION + (26 if first else 0) for _, _, first in rows)
    sheet = Image.new("RGB", (columns * cell + MARGIN, height), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, fill="black", font=font)
    y = 36
    for heading, pairs, first in rows:
        if first:
            draw.text((MARGIN, y), f"{heading}   (left: before, right: after)", fill="#444444", font=font)
            y += 26
        for i, pair in enumerate(pairs):
            x = MARGIN + i * cell
            sheet.paste(pair.before.resize((side, side), Image.Resampling.NEAREST), (x, y))
            sheet.paste(pair.after.resize((side, side), Image.Resampling.NEAREST), (x + side + GAP, y))
            for line, words in enumerate(_wrapped(pair.text, 2 * side, small)[:2]):
                draw.text((x, y + side + 2 + 12 * line), words, fill="black", font=small)
        y += side + CAPTION
    return sheet


def _wrapped(text: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
