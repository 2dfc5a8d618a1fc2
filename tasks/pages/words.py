"""Numbers and names as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tasks.pages.page import NOTHING, Number

PERCENT = "\N{NO-BREAK SPACE}%"
MINUS = "\N{MINUS SIGN}"
MANY = 200  # judgements from which a share has a decimal


def share(value: float | None, n: int | None = None, signed: bool = False) -> str:
    """A share in per cent.

    >>> [share(one, n, True).removesuffix(PERCENT) for one, n in ((0.2, 10), (0.2, 1000), (-0.8, 10), (-0.001, 10))]
    ['+20', '+20.0', '−80', '0']
    """
    if value is None:
        return ""
    text = f"{abs(100 * value):.{int(n is not None and n >= MANY)}f}"
    sign = "" if not float(text) else MINUS if value < 0 else "+" if signed else ""
    return f"{sign}{text}{PERCENT}"


def density(value: float) -> str:
    """A share of weights in per cent, in three digits.

    >>> [density(share).removesuffix(PERCENT) for share in (0.1786, 0.00123, 0.16, 0, 1)]
    ['17.9', '0.123', '16.0', '0', '100']
    """
    return (f"{100 * value:#.3g}".rstrip(".") if value else "0") + PERCENT


def number(
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    percent: bool = True,
    n: int | None = None,
    signed: bool = False,
) -> Number:
    """A number with its interval, as a share in per cent or as it is.

    >>> number(0.2, 0.05, 0.4).interval.removesuffix(PERCENT), number(0.3141, 0.3, 0.35, percent=False).text
    ('5 to 40', '0.314')
    """
    if value is None or math.isnan(value):
        return NOTHING

    def text(one: float) -> str:
        return share(one, n, signed) if percent else f"{one:.3g}".replace("-", MINUS)

    if low is None or high is None:
        return Number(text(value), value)
    ends = (text(low).removesuffix(PERCENT), text(high))
    return Number(text(value), value, f"{ends[0]} to {ends[1]}", low, high)


def plural(count: int, word: str) -> str:
    """A count with its word.

    >>> plural(1, "image"), plural(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def drawing(about: Mapping[str, Any]) -> str:
    """How images were drawn, from a draw's document: "25 steps, guidance 4, 64 × 64 px, float32"."""
    found = about["drawing"]
    size = f"{found['width']} × {found['height']} px" if found["width"] and found["height"] else "the model's own size"
    return f"{found['steps']} steps, guidance {found['guidance']:g}, {size}, {about['dtype']}"
