"""Charts of a sweep: values in, PNG bytes out. What all charts share is `figure`, `png`, `ticks` and the colours.

Colours are Okabe and Ito's and the map is cividis, which the colour-blind can tell apart; marks differ in shape too.
Figures are made without pyplot, so that any thread may draw and nothing is kept.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

DPI = 120  # px an inch
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#767676"
MAP = "cividis"
LISTED = 24  # judged points with a number and a line beside the trade-off plot; more would not be legible
WRITTEN = 400  # cells of a panel that bear their number
COLUMNS = 3  # panels side by side in a density map


@dataclass(frozen=True)
class Point:
    """One point of a sweep's grid."""

    sparsity: str  # k, decimal text
    t_hat: int
    vote_share: float
    density: float  # share of the sites' weights that are pruned, 0 to 1
    erased: float | None = None  # share of what the judge recognised before that is gone, 0 to 1; None: not judged
    kept: float | None = None  # share of the others' accuracy that is left, 0 to 1
    chosen: bool = False
    branch: str = ""  # guidance halves that count, where points differ in them


def figure(width: float, height: float, title: str) -> Figure:
    """An empty figure, in inches, with a title at the left."""
    made = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    made.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return made


def png(made: Figure) -> bytes:
    """The figure as a PNG."""
    buffer = io.BytesIO()
    made.savefig(buffer, format="png")
    return buffer.getvalue()


def ticks(axis: Any, labels: Sequence[str], most: int = 16, size: float = 8) -> None:
    """Label the whole numbers of an axis from 0, leaving some out where there are more than `most`."""
    every = max(1, math.ceil(len(labels) / most))
    axis.set_ticks(range(0, len(labels), every), labels[::every], fontsize=size)


def colour_bar(made: Figure, mapped: Any, axes: Any, label: str) -> None:
    """A colour bar beside one or several axes."""
    bar = made.colorbar(mapped, ax=axes, shrink=0.9, format="%g")
    if isinstance(mapped.norm, LogNorm):
        bar.minorticks_off()
        bar.set_ticks(LogLocator(subs=(1, 2, 5)))
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8, which="both")


def ink(share: float) -> str:
    """The colour of text on a cell at this share of the colour map."""
    return "black" if share > 0.55 else "white"


def percent(share: float) -> str:
    """A share in per cent, without the sign, in three digits.

    >>> percent(0.1786), percent(0.00123), percent(0)
    ('17.9', '0.123', '0')
    """
    return f"{100 * share:.3g}"


def tradeoff(concept: str, points: Sequence[Point], keep: float) -> bytes:
    """What judged points erase against what others keep, as the paper draws it, the chosen one ringed.

    `keep` is the share that others shall keep, drawn as a line. Points that were not judged are left out. Raises
    ValueError if none was judged.
    """
    judged = sorted((point for point in points if point.erased is not None), key=lambda point: point.density)
    if not judged:
        raise ValueError("no point was judged, so there is no trade-off to draw; draw and judge images first")
    listed = [place for place, point in enumerate(judged) if place < LISTED or point.chosen]
    points_judged = f"{len(judged)} judged point{'' if len(judged) == 1 else 's'}"
    made = figure(10.5, max(4.6, 1.6 + 0.19 * len(listed)), f"{concept}: erased against kept, {points_judged}")
    axes, side = made.subplots(1, 2, width_ratios=[5, 4])
    places = [(100 * (point.erased or 0), 100 * (point.kept or 0)) for point in judged]
    _keep_line(axes, 100 * keep, min(y for _, y in places))
    dots = axes.scatter(*zip(*places, strict=True), c=[100 * point.density for point in judged], cmap=MAP, vmin=0,
                        s=60, edgecolor="black", lw=0.6, zorder=3)  # fmt: skip
    colour_bar(made, dots, axes, "density (% of weights pruned)")
    for place, point in zip(places, judged, strict=True):
        if point.chosen:
            axes.scatter(*place, s=190, facecolor="none", edgecolor=ORANGE, lw=2, zorder=4)
    side.set_axis_off()
    side.text(0, 1, _list(judged, listed), family="monospace", fontsize=8, va="top", transform=side.transAxes)
    names = [f"{place + 1} chosen" if judged[place].chosen else str(place + 1) for place in listed]
    made.draw_without_rendering()  # lays the axes out: only then is it known where points are in pixels
    _number(axes, [places[place] for place in listed], names)
    return png(made)


def density_map(concept: str, points: Sequence[Point]) -> bytes:
    """Densities over k and t_hat, one panel a vote share; judged points are framed, the chosen one has a star.

    Raises ValueError if there is no point.
    """
    if not points:
        raise ValueError("a sweep without points has no densities to draw; give a grid")
    ks = sorted({point.sparsity for point in points}, key=Decimal)
    t_hats, shares = sorted({point.t_hat for point in points}), sorted({point.vote_share for point in points})
    columns = math.ceil(len(shares) / math.ceil(len(shares) / COLUMNS))
    wide, high = min(max(0.62 * len(t_hats), 2.4), 9.0), min(max(0.36 * len(ks), 1.2), 12.0)
    down = math.ceil(len(shares) / columns)
    made = figure(columns * wide + 2.2, down * (high + 0.9) + 0.7, f"{concept}: % of weights pruned at each point")
    panels = made.subplots(down, columns, squeeze=False).ravel()
    norm = _norm([point.density for point in points])
    for number, (panel, share) in enumerate(zip(panels, shares, strict=False)):
        _density_panel(panel, [point for point in points if point.vote_share == share], ks, t_hats, norm)
        panel.set_title(f"vote share {share:g}", fontsize=9)
        panel.set_xlabel("t_hat (first steps that vote)", fontsize=8)
        panel.set_ylabel("k (sparsity)" if number % columns == 0 else "", fontsize=8)
    for panel in panels[len(shares) :]:
        panel.set_axis_off()
    colour_bar(made, panels[0].images[0], list(panels), "density (% of weights)")
    if any(point.erased is not None for point in points):
        made.supxlabel("framed: drawn and judged; star: chosen", fontsize=8, x=0.01, ha="left")
    return png(made)


def _keep_line(axes: Any, keep: float, lowest: float) -> None:
    """The axes of a trade-off, from below the lowest share kept to 100 %, with what is kept well enough shaded."""
    span = 100 - min(lowest, keep)
    top = 100 + 0.08 * span
    bottom = 100 - 1.15 * span
    axes.set(xlim=(-5, 105), ylim=(bottom, top))
    axes.set_xlabel("erased (% of the judge's hits on the concept that are gone)", fontsize=9)
    axes.set_ylabel("kept (% of the others' accuracy that is left)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.axhspan(keep, top, color=GREEN, alpha=0.10, lw=0)
    axes.axhline(keep, color=GREEN, lw=1, ls="--")
    axes.text(-4, keep, f"{keep:g}% kept", color=GREEN, fontsize=8, va="top")
    axes.set_yticks([tick for tick in axes.get_yticks() if bottom <= tick <= 100])
    axes.grid(alpha=0.25)


def _density_panel(axes: Any, points: Sequence[Point], ks: Sequence[str], t_hats: Sequence[int], norm: Any) -> None:
    """One vote share's cells."""
    cells = [[math.nan] * len(t_hats) for _ in ks]
    for point in points:
        row, column = ks.index(point.sparsity), t_hats.index(point.t_hat)
        cells[row][column] = 100 * point.density
        if len(ks) * len(t_hats) <= WRITTEN:
            colour = ink(float(norm(100 * point.density)))
            axes.text(column, row, percent(point.density), ha="center", va="center", fontsize=7, color=colour)
        if point.erased is not None:
            _frame(axes, column, row)
        if point.chosen:
            axes.plot(column + 0.32, row + 0.24, marker="*", ms=11, mfc=ORANGE, mec="white", mew=0.8)
    axes.imshow(cells, cmap=MAP, norm=norm, aspect="auto", origin="lower")
    ticks(axes.xaxis, [str(t_hat) for t_hat in t_hats])
    ticks(axes.yaxis, list(ks))


def _frame(axes: Any, column: int, row: int) -> None:
    """A frame in a cell, white around black: seen on any colour."""
    x, y = [column - 0.44, column + 0.44], [row - 0.42, row + 0.42]
    corners = [(x[0], x[1], x[1], x[0], x[0]), (y[0], y[0], y[1], y[1], y[0])]
    axes.plot(*corners, color="white", lw=2.8)
    axes.plot(*corners, color="black", lw=1.1)


def _norm(densities: Sequence[float]) -> Normalize:
    """Logarithmic where densities differ tenfold, for a linear map would show one colour below its end."""
    lowest, highest = 100 * min(densities), 100 * max(densities)
    if lowest > 0 and highest > 10 * lowest:
        return LogNorm(lowest, highest)
    return Normalize(0, highest or 1)


def _number(axes: Any, places: Sequence[tuple[float, float]], names: Sequence[str]) -> None:
    """Write each point's name beside it; points at one place share a tag, and tags keep away from each other."""
    together: dict[tuple[float, float], list[str]] = {}
    for (x, y), name in zip(places, names, strict=True):
        together.setdefault((round(x, 1), round(y, 1)), []).append(name)
    to_pixels = axes.transData.transform
    taken = [tuple(to_pixels(place)) for place in together]
    for place, tags in together.items():
        text = ", ".join(tags) if len(tags) < 7 else f"{', '.join(tags[:6])} ..."
        half = 4.0 * len(text)  # px, of a text in size 8
        x, y = to_pixels(place)
        right = half + 16
        spots = [(0, 20), (0, -20), (right, 0), (-right, 0), (right, 14), (-right, 14), (right, -14), (-right, -14)]
        best = max(spots, key=lambda spot: _clearance(x + spot[0], y + spot[1], half, taken))
        taken += [(x + best[0] + shift * half, y + best[1]) for shift in (-1, 0, 1)]
        offset = [move * 72 / DPI for move in best]
        axes.annotate(text, place, offset, textcoords="offset points", ha="center", va="center", fontsize=8, zorder=5)


def _clearance(x: float, y: float, half: float, taken: Sequence[tuple[float, ...]]) -> float:
    """How far a text of half this width stays away from what is taken, at most 16 px: farther is no better."""
    ends = [x + shift * half for shift in (-1, 0, 1)]
    return min(16.0, *(math.hypot(end - other[0], y - other[1]) for end in ends for other in taken))


def _list(judged: Sequence[Point], listed: Sequence[int]) -> str:
    """The numbered points as lines of text, lowest density first."""
    rows = [f"{'':>4} {'k':>7} {'t_hat':>5} {'share':>5} {'density':>8} {'erased':>6} {'kept':>5}"]
    several = len({point.branch for point in judged}) > 1
    for place in listed:
        point = judged[place]
        rows.append(
            f"{place + 1:>3}{'*' if point.chosen else ' '} {point.sparsity:>7} {point.t_hat:>5} {point.vote_share:>5g} "
            f"{percent(point.density):>7}% {point.erased or 0:>6.0%} {point.kept or 0:>5.0%}"
            f"{' ' + point.branch if several else ''}"
        )
    if len(listed) < len(judged):
        rows.append(f"     and {len(judged) - len(listed)} of higher density, without a number")
    if any(point.chosen for point in judged):
        rows.append("   * chosen")
    return "\n".join(rows)
