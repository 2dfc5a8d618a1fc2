"""What pages are made of: images no larger than shown, charts whose points lie where their numbers say."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tasks.pages import graphics
from tasks.pages.graphics import Judged
from tasks.pages.pictures import PIXELS, SIDE, picture
from tasks.pages.rendering import breakable, environment

SHARES = st.floats(0, 1)
POINTS = st.lists(st.builds(Judged, st.integers(1, 99), SHARES, SHARES, st.just("x")), min_size=1, max_size=30)


def png(width: int, height: int) -> tuple[bytes, np.ndarray]:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue(), pixels


def shown(url: str) -> Image.Image:
    head, _, data = url.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def test_a_small_image_is_kept_exactly() -> None:
    data, pixels = png(PIXELS, 40)
    found = picture(data)
    assert found.pixelated
    assert np.array_equal(np.asarray(shown(found.url)), pixels)


def test_a_large_image_is_scaled_to_what_is_shown() -> None:
    found = picture(png(1024, 512)[0])
    assert (found.width, found.height, found.pixelated) == (SIDE, SIDE // 2, False)
    assert shown(found.url).size == (SIDE, SIDE // 2)


@given(POINTS, SHARES)
def test_points_lie_in_the_frame_and_keep_their_order(points: list[Judged], keep: float) -> None:
    chart = graphics.tradeoff(points, keep)
    assert chart is not None
    frame = chart.frame
    for dot in chart.dots:
        assert frame.left <= dot.x <= frame.right
        assert frame.top <= dot.y <= frame.bottom
    for one, dot in zip(points, chart.dots, strict=True):
        for other, at in zip(points, chart.dots, strict=True):
            assert one.erased >= other.erased or dot.x <= at.x
            assert one.kept >= other.kept or dot.y >= at.y
        assert one.kept >= keep or dot.y >= chart.keep
    named = sum(tag.text.count(",") + 1 for tag in chart.tags if "…" not in tag.text)
    assert named == len(points) or any("…" in tag.text for tag in chart.tags)


@given(st.lists(SHARES, min_size=1, max_size=60), st.integers(1, 60))
def test_steps_lie_in_the_frame(shares: list[float], t_hat: int) -> None:
    chart = graphics.steps(shares, shares, shares, t_hat)
    assert chart is not None
    assert len(chart.dots) == len(shares)
    for dot in chart.dots:
        assert chart.frame.left <= dot.x <= chart.frame.right
        assert chart.frame.top <= dot.y <= chart.frame.bottom
    assert chart.frame.left <= chart.votes <= chart.frame.right
    assert len(chart.frame.x) <= 12


def test_nothing_to_draw_is_no_chart() -> None:
    assert graphics.tradeoff([], 0.95) is None
    assert graphics.steps([], [], [], 3) is None


def test_every_template_escapes() -> None:
    made = environment()
    assert made.autoescape is True
    for source in made.list_templates(extensions=["html"]):
        text = (made.loader.get_source(made, source))[0]  # type: ignore[union-attr]
        assert "| safe" not in text
        assert "autoescape" not in text
    assert str(breakable("<b>.c")) == "&lt;b&gt;.<wbr>c"


@pytest.mark.parametrize("name", ["page.css", "page.js"])
def test_what_stands_inside_style_and_script_cannot_end_them(name: str) -> None:
    text = environment().loader.get_source(environment(), name)[0]  # type: ignore[union-attr]
    assert "</" not in text
