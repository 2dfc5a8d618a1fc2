"""Contact sheets: each image where its prompt says it is."""

import numpy as np
import pytest
from PIL import Image

from tasks.metrics.sheets import CAPTION, GAP, MARGIN, TILE, Pair, contact_sheet

RED, BLUE = (255, 0, 0), (0, 0, 255)


def pair(text: str = "a photo of a fox", size: int = 32) -> Pair:
    return Pair(text, Image.new("RGB", (size, size), RED), Image.new("RGB", (size, size), BLUE))


def count(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    """How many pixels have exactly this colour."""
    return int((np.asarray(sheet) == colour).all(-1).sum())


def test_before_is_left_and_after_is_right() -> None:
    sheet = contact_sheet("fox", [("with fox", [pair()])], columns=1)
    y = sheet.height - CAPTION - TILE // 2
    assert sheet.getpixel((MARGIN + TILE // 2, y)) == RED
    assert sheet.getpixel((MARGIN + TILE + GAP + TILE // 2, y)) == BLUE
    assert count(sheet, RED) == count(sheet, BLUE) == TILE * TILE  # enlarged without smoothing, not covered


@pytest.mark.parametrize(("pairs", "columns", "rows"), [(1, 5, 1), (5, 5, 1), (6, 5, 2), (4, 1, 4)])
def test_every_pair_is_shown(pairs: int, columns: int, rows: int) -> None:
    sheet = contact_sheet("fox", [("with fox", [pair()] * pairs)], columns)
    assert count(sheet, RED) == count(sheet, BLUE) == pairs * TILE * TILE
    one_row = contact_sheet("fox", [("with fox", [pair()])], columns)
    assert sheet.size == (one_row.width, one_row.height + (rows - 1) * (TILE + CAPTION))


def test_every_section_is_shown() -> None:
    sections = [("with fox", [pair()] * 2), ("nothing here", []), ("others", [pair()] * 7)]
    assert count(contact_sheet("fox", sections), RED) == 9 * TILE * TILE


def test_large_images_keep_their_size() -> None:
    assert count(contact_sheet("fox", [("", [pair(size=TILE + 32)])]), RED) == (TILE + 32) ** 2


@pytest.mark.parametrize("text", ["", "word " * 200, "w" * 500, "狐 🦊 a\nb"])
def test_any_prompt_can_be_a_caption(text: str) -> None:
    sheet = contact_sheet("fox", [("with fox", [pair(text), pair()])], columns=2)
    assert count(sheet, RED) == count(sheet, BLUE) == 2 * TILE * TILE


def test_the_same_input_draws_the_same_sheet() -> None:
    first, second = (contact_sheet("fox", [("with fox", [pair()])]) for _ in range(2))
    assert first.tobytes() == second.tobytes()
