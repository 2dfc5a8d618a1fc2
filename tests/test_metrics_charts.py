"""Charts: PNGs that decode, of a sensible size, that show other values otherwise."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tasks.metrics import concept_charts
from tasks.metrics.charts import DPI, LISTED, Point, density_map, tradeoff

POINTS = [
    Point(k, t_hat, share, float(k) * t_hat * (1 - share) / 10)
    for k in ("0.01", "0.05", "0.1")
    for t_hat in (5, 10)
    for share in (0.0, 0.5)
]
JUDGED = [
    replace(point, erased=min(1.0, 8 * point.density), kept=1 - point.density, chosen=place == 4)
    for place, point in enumerate(POINTS)
]


def size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG, which is read to its end and is not one colour."""
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        assert len(image.convert("RGB").getcolors(10_000_000) or []) > 5
        return image.size


def traces(values: float = 1.0, neurons: int = 4) -> list[concept_charts.Traces]:
    steps = values * np.linspace(2, 1, 6) * np.array([[1.0], [1.5], [2.0]])
    return [concept_charts.Traces(f"unet.up.{n}.ff", n, 0.5, steps * (n + 1), steps) for n in range(neurons)]


def shares(offset: float = 0.0) -> dict[str, np.ndarray]:
    return {f"unet.up.{n}.ff": np.linspace(0.3, 0.5, 6) + 0.02 * n + offset for n in range(3)}


def overlap(value: float = 0.2) -> bytes:
    table = np.array([[value, 0.1, 0.4], [0.3, 0.0, 1.0]])
    return concept_charts.overlap_map("fox", ["panda", "owl"], ["all", "up", "mid"], table, "site")


def frequency(value: float = 1.0) -> bytes:
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(25, 51, 500) / 50 * value, rng.integers(0, 20, 900) / 50
    return concept_charts.frequencies("fox", inside, outside, 50, 2, 4)


DRAWN: dict[str, list[Callable[[], bytes]]] = {
    "tradeoff": [
        lambda: tradeoff("fox", JUDGED, 0.95),
        lambda: tradeoff("fox", JUDGED[:-1], 0.95),
        lambda: tradeoff("fox", JUDGED, 0.9),
        lambda: tradeoff("fox", [replace(point, chosen=False) for point in JUDGED], 0.95),
    ],
    "density map": [
        lambda: density_map("fox", POINTS),
        lambda: density_map("fox", JUDGED),
        lambda: density_map("fox", [*POINTS[:-1], replace(POINTS[-1], density=0.9)]),
    ],
    "density by site": [
        lambda: concept_charts.density_by_site("fox", {"unet.up.0": 0.1, "unet.up.1": 0.2}, 0.15),
        lambda: concept_charts.density_by_site("fox", {"unet.up.0": 0.1, "unet.up.1": 0.3}, 0.15),
        lambda: concept_charts.density_by_site("fox", {"unet.up.0": 0.1, "unet.up.1": 0.2}, 0.18),
    ],
    "energies": [
        lambda: concept_charts.energies("fox", traces(), 3),
        lambda: concept_charts.energies("fox", traces(3.0), 3),
        lambda: concept_charts.energies("fox", traces(), 4),
    ],
    "skilled shares": [
        lambda: concept_charts.skilled_shares("fox", shares(), shares()["unet.up.1.ff"], 3),
        lambda: concept_charts.skilled_shares("fox", shares(0.1), shares()["unet.up.1.ff"], 3),
    ],
    "overlap map": [lambda: overlap(), lambda: overlap(0.25)],
    "frequencies": [lambda: frequency(), lambda: frequency(0.8)],
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_chart_is_a_png_that_depends_on_its_values_alone(name: str) -> None:
    first, *others = (draw() for draw in DRAWN[name])
    for data in (first, *others):
        width, height = size(data)
        assert 3 * DPI <= width <= 16 * DPI
        assert 2 * DPI <= height <= 16 * DPI
    assert DRAWN[name][0]() == first
    assert len({first, *others}) == 1 + len(others)


def test_a_map_grows_with_its_grid() -> None:
    large = [Point(f"0.{k:02}", t_hat, 0.0, 0.1) for k in range(1, 31) for t_hat in range(1, 21)]
    small, wide = size(density_map("fox", POINTS[:1])), size(density_map("fox", large))
    assert wide[0] > small[0]
    assert wide[1] > small[1]


@pytest.mark.parametrize("density", [0.0, 0.3])
def test_one_point_is_enough(density: float) -> None:
    point = Point("0.1", 5, 0.0, density, 0.0, 1.0, True)
    for data in (tradeoff("fox", [point], 0.95), density_map("fox", [point])):
        size(data)


def test_many_points_at_one_place_stay_legible() -> None:
    points = [replace(JUDGED[0], t_hat=t_hat, erased=0.0, kept=1.0, chosen=False) for t_hat in range(1, 3 * LISTED)]
    points[-1] = replace(points[-1], chosen=True, density=0.5)  # listed, though it is the last
    size(tradeoff("fox", points, 0.95))


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="no point was judged"):
        tradeoff("fox", POINTS, 0.95)
    with pytest.raises(ValueError, match="without points"):
        density_map("fox", [])
    with pytest.raises(ValueError, match="no neuron is pruned"):
        concept_charts.energies("fox", [], 3)


@pytest.mark.parametrize(
    ("names", "short", "compact"),
    [
        (["unet.down.0.ff.net.2", "unet.mid.ff.net.2"], ["down.0", "mid"], ["down 0", "mid"]),
        (["unet.mid.ff.net.2"], ["unet.mid.ff.net.2"], ["unet 2"]),
        (["a.1.b", "a.2.b", "a.2.c"], ["1.b", "2.b", "2.c"], ["1.b", "2.b", "2.c"]),
        (["a.b", "a.b.c"], ["b", "b.c"], ["b", "b.c"]),
    ],
)
def test_names_are_shortened_and_stay_distinct(names: list[str], short: list[str], compact: list[str]) -> None:
    assert concept_charts.short_names(names) == short
    assert concept_charts.compact_names(names) == compact
