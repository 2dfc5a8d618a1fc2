"""Charts of one concept's edit: densities, energies, skilled shares, overlaps, stability. Values in, PNG bytes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import MaxNLocator

from tasks.metrics.charts import (
    BLUE,
    GREEN,
    GREY,
    MAP,
    ORANGE,
    WRITTEN,
    colour_bar,
    figure,
    ink,
    percent,
    png,
    ticks,
)

BINS = 25  # of a share from 0 to 1: two of 50 bootstrap samples each
PANELS = 3  # side by side
SMALL: dict[str, Any] = {"fontsize": 8, "title_fontsize": 8, "frameon": False}  # legends
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Traces:
    """One neuron's energies, [prompt, step] of each role."""

    site: str
    neuron: int
    share: float  # of the site's rows that prune it, 0 to 1
    target: Floats
    reference: Floats


def short_names(names: Sequence[str]) -> list[str]:
    """Dotted names without the parts that all share at either end; one name alone stays as it is.

    >>> short_names(["unet.down.0.ff.net.2", "unet.mid.ff.net.2"])
    ['down.0', 'mid']
    """
    parts = [name.split(".") for name in names]
    start = end = 0
    while len(parts) > 1 and min(map(len, parts)) > start + 1 and len({part[start] for part in parts}) == 1:
        start += 1
    while len(parts) > 1 and min(map(len, parts)) > start + end + 1 and len({part[-1 - end] for part in parts}) == 1:
        end += 1
    return [".".join(part[start : len(part) - end]) for part in parts]


def compact_names(names: Sequence[str]) -> list[str]:
    """The first word and the numbers of each name, where that tells them apart; else their short names.

    >>> compact_names(["unet.down_blocks.0.attentions.1.ff", "unet.mid_block.attentions.0.ff"])
    ['down 0.1', 'mid 0']
    """
    short = short_names(names)
    found = []
    for name in short:
        first, *rest = name.split(".")
        found.append(" ".join([first.partition("_")[0], ".".join(part for part in rest if part.isdigit())]).strip())
    return found if len(set(found)) == len(found) else short


def density_by_site(concept: str, densities: Mapping[str, float], overall: float) -> bytes:
    """Share of each site's weights that are pruned, in the order given, and of all together as a line."""
    made = figure(8, 1.5 + 0.3 * len(densities), f"{concept}: pruned weights by site")
    axes, shares = made.subplots(), [100 * density for density in densities.values()]
    axes.barh(range(len(shares)), shares, color=BLUE, height=0.7)
    for place, share in enumerate(shares):
        over_the_line = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        axes.annotate(f"{percent(share / 100)}%", (share, place), (4, 0), textcoords="offset points", va="center",
                      fontsize=8, bbox=over_the_line)  # fmt: skip
    axes.axvline(100 * overall, color=ORANGE, lw=1.5, ls="--", label=f"all sites together: {percent(overall)}%")
    axes.set(xlim=(0, 1.15 * max(*shares, 100 * overall, 1e-6)), ylim=(len(shares) - 0.4, -0.6))
    axes.set_xlabel("density (% of the site's weights)", fontsize=9)
    ticks(axes.yaxis, short_names(list(densities)), most=200)
    axes.set_axisbelow(True)
    axes.tick_params(axis="x", labelsize=8)
    made.legend(loc="outside lower right", **SMALL)
    return png(made)


def energies(concept: str, neurons: Sequence[Traces], t_hat: int) -> bytes:
    """Energy over steps of some neurons, target against reference: the mean and the middle half of the prompts.

    The steps that vote are shaded. Raises ValueError if there is no neuron.
    """
    if not neurons:
        raise ValueError("no neuron is pruned, so there are no energies to draw; choose another edit")
    columns, down = min(PANELS, len(neurons)), -(-len(neurons) // PANELS)
    made = figure(
        max(3.3 * columns, 6.6), 2.5 * down + 1.0, f"{concept}: energy of the most pruned neuron of each site"
    )
    panels = made.subplots(down, columns, squeeze=False, sharex=True).ravel()
    names = short_names([one.site for one in neurons])
    for number, (axes, name, one) in enumerate(zip(panels, names, neurons, strict=False)):
        axes.axvspan(-0.5, t_hat - 0.5, color=GREEN, alpha=0.12, lw=0, label=f"steps that vote ({t_hat})")
        for values, colour, style, role in (
            (one.reference, BLUE, "--", "reference"),
            (one.target, ORANGE, "-", "target"),
        ):
            steps = range(values.shape[1])
            axes.fill_between(steps, *np.quantile(values, [0.25, 0.75], axis=0), color=colour, alpha=0.2, lw=0)
            axes.plot(steps, values.mean(0), color=colour, ls=style, lw=1.8, label=role)
        axes.set_title(f"{name}\nneuron {one.neuron}, pruned in {one.share:.0%} of rows", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("energy, a prompt" if number % columns == 0 else "", fontsize=8)
        axes.set_xlabel("step" if number >= len(neurons) - columns else "", fontsize=8)
        axes.tick_params(labelsize=7, labelbottom=number >= len(neurons) - columns)
        axes.set_ylim(bottom=0)
        axes.margins(x=0)
    for axes in panels[len(neurons) :]:
        axes.set_axis_off()
    handles = panels[0].get_legend_handles_labels()
    note = "line: mean of the prompts; band: their middle half"
    made.legend(*handles, loc="outside lower left", ncols=3, title=note, alignment="left", **SMALL)
    return png(made)


def skilled_shares(concept: str, sites: Mapping[str, Floats], overall: Floats, t_hat: int) -> bytes:
    """Share of candidates that are skilled at each step, [step] of each site and of all sites together.

    The sites with the highest and the lowest share are named.
    """
    made = figure(7, 3.8, f"{concept}: candidates that are skilled, by step")
    axes, steps = made.subplots(), range(len(overall))
    axes.axvspan(-0.5, t_hat - 0.5, color=GREEN, alpha=0.12, lw=0, label=f"steps that vote ({t_hat})")
    for number, shares in enumerate(sites.values()):
        axes.plot(
            steps, 100 * shares, color=GREY, lw=0.8, alpha=0.7, label="" if number else f"each of {len(sites)} sites"
        )
    if len(sites) > 1:
        _name_extremes(axes, sites)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.plot(steps, 100 * overall, color=ORANGE, lw=2.4, marker="o", ms=3.5, label="all sites together")
    axes.set_xlim(-0.5, len(overall) - 0.5)
    axes.set_ylim(0, axes.get_ylim()[1] + 4)
    axes.set_xlabel("step", fontsize=9)
    axes.set_ylabel("skilled (% of candidates)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    made.legend(loc="outside lower left", ncols=3, **SMALL)
    return png(made)


def _name_extremes(axes: Any, sites: Mapping[str, Floats]) -> None:
    """The names of the sites that have the highest and the lowest share, where they have it."""
    names = dict(zip(sites, short_names(list(sites)), strict=True))
    for site, step, above in (
        (max(sites, key=lambda name: sites[name].max()), np.argmax, True),
        (min(sites, key=lambda name: sites[name].min()), np.argmin, False),
    ):
        place = int(step(sites[site]))
        side = "left" if place < len(sites[site]) / 2 else "right"
        axes.annotate(names[site], (place, 100 * sites[site][place]), (0, 5 if above else -5), ha=side,
                      va="bottom" if above else "top", textcoords="offset points", fontsize=7, color=GREY)  # fmt: skip


def overlap_map(title: str, others: Sequence[str], columns: Sequence[str], iou: Floats, label: str) -> bytes:
    """Intersection over union with other concepts, [other, column], 0 to 1; `label` says what the columns are."""
    wide = min(max(0.5 * len(columns), 3.0), 12.0)
    made = figure(wide + 3.4, min(0.32 * len(others), 12) + 1.9 + 0.055 * max(map(len, columns)), title)
    axes, highest = made.subplots(), max(float(iou.max()), 1e-6)
    image = axes.imshow(iou, cmap=MAP, vmin=0, vmax=highest, aspect="auto")
    if iou.size <= WRITTEN:
        for (row, column), value in np.ndenumerate(iou):
            axes.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=ink(float(value) / highest)
            )
    ticks(axes.yaxis, list(others), most=200)
    ticks(axes.xaxis, list(columns), most=60)
    if max(map(len, columns)) > 4:
        axes.tick_params(axis="x", rotation=90)
    axes.set_xlabel(label, fontsize=9)
    colour_bar(made, image, axes, "IoU")
    return png(made)


def frequencies(concept: str, inside: Floats, outside: Floats, samples: int, sites: int, of_sites: int) -> bytes:
    """How often a bootstrap of the prompts selects each weight: of the mask, and of the others that it ever selects.

    `inside` and `outside` are shares of the samples, 0 to 1; those outside the mask that are never selected (0) are
    counted in the legend and not drawn.
    """
    made = figure(8, 4.2, f"{concept}: how often {samples} bootstrap samples select a weight")
    axes, ever = made.subplots(), outside[outside > 0]
    edges = np.linspace(0, 1, BINS + 1) + 0.5 / samples
    edges[0] = -0.5 / samples
    of = f"all {sites} sites" if sites == of_sites else f"the {sites} smallest of {of_sites} sites"
    labels = [
        f"in the mask ({len(inside):,})",
        f"not in the mask ({len(ever):,}; {len(outside) - len(ever):,} more never selected)",
    ]
    axes.hist([inside, ever], bins=edges.tolist(), stacked=True, color=[BLUE, ORANGE], label=labels, hatch=["", "//"],
              edgecolor="white", lw=0.4)  # fmt: skip
    axes.set_xlim(0, 1.02)
    axes.set_xlabel(f"share of samples that select the weight ({of})", fontsize=9)
    axes.set_ylabel("weights", fontsize=9)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.tick_params(labelsize=8)
    sure = float((inside >= 0.95).mean()) if len(inside) else 0.0
    axes.set_title(f"{sure:.0%} of the mask's weights are in 95% of the samples or more", fontsize=9, loc="left")
    made.legend(loc="outside lower left", ncols=1, **SMALL)
    return png(made)
