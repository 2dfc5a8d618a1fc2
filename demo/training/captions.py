"""The demo's captions: "a fox in the style of twemoji on a blue background", with parts sometimes left out."""

from __future__ import annotations

import numpy as np

from demo.training.emoji import BACKGROUNDS, OBJECTS, STYLES

LEAVE_OUT_STYLE = 0.15
LEAVE_OUT_BACKGROUND = 0.15
EMPTY_CAPTION = 0.10  # teaches the unconditional branch of classifier-free guidance
EMPTY_SCENE = 0.08  # pictures of a background with no object


def article(noun: str) -> str:
    """The noun with "a" or "an" before it.

    >>> article("owl"), article("fox")
    ('an owl', 'a fox')
    """
    return f"{'an' if noun[0] in 'aeiou' and noun != 'unicorn' else 'a'} {noun}"


def caption(noun: str | None, style: str | None, background: str | None) -> str:
    """The words for a picture; None leaves a part out.

    >>> caption("fox", "twemoji", "blue"), caption(None, None, "blue")
    ('a fox in the style of twemoji on a blue background', 'a blue background')
    """
    if noun is None:
        return f"a {background} background"
    text = article(noun)
    if style is not None:
        text += f" in the style of {style}"
    if background is not None:
        text += f" on a {background} background"
    return text


def draw(rng: np.random.Generator, noun: str | None, style: str | None, background: str) -> str:
    """A random caption for a picture, with parts left out at the rates above."""
    if rng.random() < EMPTY_CAPTION:
        return ""
    return caption(
        noun,
        None if rng.random() < LEAVE_OUT_STYLE else style,
        None if noun is not None and rng.random() < LEAVE_OUT_BACKGROUND else background,
    )


def words() -> list[str]:
    """The vocabulary: every word that a caption can hold, in a fixed order."""
    every = [caption(noun, style, back) for noun in OBJECTS for style in STYLES for back in BACKGROUNDS]
    every += [caption(None, None, back) for back in BACKGROUNDS]
    return sorted({word for text in every for word in text.split()})
