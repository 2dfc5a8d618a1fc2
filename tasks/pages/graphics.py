"""Charts as places in a picture: the templates write them as SVG, whose colours follow the reader's light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 520.0, 340.0  # of a chart, in its own units
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 16.0, 46.0  # around what is plotted
LABEL = 19.0  # from a point to its number, past its ring
DIGIT = 8.0  # wide
NEAR = 13.0  # points closer than this would write their numbers over each other


@dataclass(frozen=True)
class Tick:
    """A label at an axis."""

    place: float
    text: str


@dataclass(frozen=True)
class Frame:
    """The plotted area, with its ticks."""

    x: Sequence[Tick]
    y: Sequence[Tick]
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM
    width: float = WIDTH
    height: float = HEIGHT


@dataclass(frozen=True)
class Dot:
    """A judged point."""

    x: float
    y: float
    text: str  # all that it says, for those who point at it or hear it
    chosen: bool
    own: bool


@dataclass(frozen=True)
class Tag:
    """The numbers of the dots at one place."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class TradeoffChart:
    """What judged points erase against what others keep."""

    frame: Frame
    dots: Sequence[Dot]
    tags: Sequence[Tag]
    keep: float  # where the line of what shall be kept is
    keep_text: str


@dataclass(frozen=True)
class StepChart:
    """Shares by step: of all sites together as a line, of the lowest and the highest as a band."""

    frame: Frame
    line: str  # SVG's points
    band: str
    votes: float  # where the steps that vote end
    votes_text: str
    dots: Sequence[Dot]


@dataclass(frozen=True)
class Judged:
    """A judged point, in shares from 0 to 1."""

    number: int
    erased: float
    kept: float
    text: str
    chosen: bool = False
    own: bool = False


def tradeoff(points: Sequence[Judged], keep: float) -> TradeoffChart | None:
    """The chart of judged points; None without any. `keep` is the share that others shall keep."""
    if not points:
        return None
    floor = _floor(min([keep, *(point.kept for point in points)]))
    low, high = floor - (1 - floor) * 0.06, 1 + (1 - floor) * 0.06
    plain = Frame((), ())

    def across(share: float) -> float:
        return round(plain.left + 14 + (plain.right - plain.left - 28) * share, 1)

    def up(share: float) -> float:
        return round(plain.bottom - (plain.bottom - plain.top) * (share - low) / (high - low), 1)

    frame = Frame([Tick(across(part / 5), str(20 * part)) for part in range(6)],
                  [Tick(up(floor + (1 - floor) * part / 4), f"{100 * (floor + (1 - floor) * part / 4):g}")
                   for part in range(5)])  # fmt: skip
    dots = [Dot(across(one.erased), up(one.kept), one.text, one.chosen, one.own) for one in points]
    tags = _tags([(dot.x, dot.y, str(one.number)) for dot, one in zip(dots, points, strict=True)], frame)
    return TradeoffChart(frame, dots, tags, up(keep), f"{100 * keep:g} % kept")


def steps(overall: Sequence[float], lowest: Sequence[float], highest: Sequence[float], t_hat: int) -> StepChart | None:
    """The chart of shares by step, 0 to 1; None without steps. The first `t_hat` steps vote."""
    if not overall:
        return None
    plain, count = Frame((), ()), len(overall)
    top = _ceiling(max(highest))

    def across(step: float) -> float:
        return round(plain.left + (plain.right - plain.left) * (step + 0.5) / count, 1)

    def up(share: float) -> float:
        return round(plain.bottom - (plain.bottom - plain.top) * share / top, 1)

    every = max(1, -(-count // 12))
    frame = Frame([Tick(across(step), str(step)) for step in range(0, count, every)],
                  [Tick(up(top * part / 4), f"{100 * top * part / 4:g}") for part in range(5)])  # fmt: skip
    places = [(across(step), up(share)) for step, share in enumerate(overall)]
    edges = [(across(step), up(share)) for step, share in enumerate(highest)]
    edges += [(across(step), up(share)) for step, share in reversed(list(enumerate(lowest)))]
    text = "every captured step votes" if t_hat >= count else f"the first {t_hat} steps vote"
    dots = [Dot(x, y, f"step {step}: {100 * share:.1f} %", False, False)
            for step, ((x, y), share) in enumerate(zip(places, overall, strict=True))]  # fmt: skip
    return StepChart(frame, _points(places), _points(edges), across(min(t_hat, count) - 0.5), text, dots)


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in places)


def _floor(share: float) -> float:
    """The round share below, so that an axis from there to 1 has round ticks."""
    return max([step for step in (0.0, 0.2, 0.4, 0.6, 0.8, 0.9) if step <= share + 1e-9], default=0.0)


def _ceiling(share: float) -> float:
    """The round share above."""
    return min([step for step in (0.04, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0) if step >= share], default=1.0)


def _tags(places: Sequence[tuple[float, float, str]], frame: Frame) -> list[Tag]:
    """The dots' numbers: one tag for those at one place, each where it is farthest from dots and other tags."""
    together: dict[tuple[float, float], list[str]] = {}
    for x, y, text in places:
        near = next((spot for spot in together if abs(spot[0] - x) < NEAR / 2 and abs(spot[1] - y) < NEAR / 2), (x, y))
        together.setdefault(near, []).append(text)
    taken, tags = list(together), []
    for x, y in together:
        texts = together[x, y]
        text = ", ".join(texts) if len(texts) < 5 else f"{', '.join(texts[:4])} …"
        half = DIGIT * len(text) / 2
        spots = [(x, y - LABEL), (x, y + LABEL), (x + LABEL + half, y), (x - LABEL - half, y)]
        inside = [spot for spot in spots if frame.left < spot[0] - half and spot[0] + half < frame.right + RIGHT]
        inside = [spot for spot in inside if 0 < spot[1] < frame.bottom] or spots[:1]
        best = max(inside, key=lambda spot: _clearance(spot, half, taken))
        taken += [(best[0] - half, best[1]), best, (best[0] + half, best[1])]
        tags.append(Tag(round(best[0], 1), round(best[1] + 4, 1), text))
    return tags


def _clearance(spot: tuple[float, float], half: float, taken: Sequence[tuple[float, float]]) -> float:
    """How far a text of this half width keeps from what is taken; past LABEL more is no better."""
    ends = (spot[0] - half, spot[0], spot[0] + half)
    return min(LABEL, *(math.hypot(x - other[0], spot[1] - other[1]) for x in ends for other in taken))
