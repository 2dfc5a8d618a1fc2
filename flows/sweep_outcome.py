"""What a sweep finds: its points, and the one that it would choose, with the reason."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from flows.choosing import Score, best, left
from flows.tabling import EditRow


@dataclass(frozen=True)
class SweepPoint:
    """One point of the grid."""

    sparsity: str  # k, decimal text
    t_hat: int
    vote_share: float
    pruned: int
    weights: int  # of all sites
    row: EditRow | None = None  # its edit, if images were drawn and judged
    chosen: bool = False

    @property
    def density(self) -> float:
        """Share of the sites' weights that are pruned."""
        return self.pruned / self.weights

    @property
    def erased(self) -> float | None:
        """Share of the judge's hits on the concept that are gone, 0 to 1; None if it was not judged."""
        return None if self.row is None else 1 - left(self.row.concept_before, self.row.concept_after)

    @property
    def kept(self) -> float | None:
        """Share of the others' accuracy that is left, 0 to 1; None if it was not judged."""
        return None if self.row is None else left(self.row.others_before, self.row.others_after)

    @property
    def name(self) -> str:
        """For people."""
        return f"k {self.sparsity}, t_hat {self.t_hat}, vote share {self.vote_share:g}"

    def as_chart(self) -> dict[str, Any]:
        """What charts show of it."""
        return {"sparsity": self.sparsity, "t_hat": self.t_hat, "vote_share": self.vote_share,
                "density": self.density, "erased": self.erased, "kept": self.kept, "chosen": self.chosen}  # fmt: skip

    def as_row(self) -> dict[str, Any]:
        """Its columns in the table of sweeps, and its JSON values."""
        judged = {name: getattr(self.row, name, None) for name in JUDGED}
        return {**self.as_chart(), "sparsity": float(self.sparsity), "pruned": self.pruned, "weights": self.weights,
                **judged}  # fmt: skip


JUDGED = ("edit", "url", "judge", "concept_before", "concept_after", "concept_n", "others_before", "others_after",
          "others_n")  # fmt: skip


@dataclass(frozen=True)
class SweepOutcome:
    """A sweep, for people and for JSON."""

    concept: str
    store: str
    sweep: str  # digest of all that decides it
    points: Sequence[SweepPoint]
    why: str  # which point was chosen and why, or why none was
    charts: Mapping[str, str]  # "density", and "tradeoff" where points were judged: URLs
    command: str | None  # that makes the chosen point the concept's latest edit

    @property
    def judged(self) -> list[SweepPoint]:
        """The points that were drawn and judged, lowest density first."""
        return sorted((point for point in self.points if point.row is not None), key=lambda point: point.density)

    @property
    def chosen(self) -> SweepPoint | None:
        """The point that the sweep would choose; None without images."""
        return next((point for point in self.points if point.chosen), None)

    def as_json(self) -> dict[str, Any]:
        """The command line's JSON document."""
        points = [
            {**asdict(point), "row": None if point.row is None else point.row.as_json(), "density": point.density,
             "erased": point.erased, "kept": point.kept}
            for point in self.points
        ]  # fmt: skip
        return {**vars(self), "charts": dict(self.charts), "points": points}


def sweep_of(document: Mapping[str, Any]) -> SweepOutcome:
    """The outcome that its JSON document describes."""
    points = [
        SweepPoint(**{name: value for name, value in point.items() if name not in ("density", "erased", "kept", "row")},
                   row=None if point["row"] is None else EditRow.from_json(point["row"]))
        for point in document["points"]
    ]  # fmt: skip
    return SweepOutcome(**{**document, "points": points})


def spread(points: Sequence[SweepPoint], images: int) -> list[int]:
    """Places of the points to judge: as far from each other in density as can be, each ratio counting the same.

    The first is in the middle, the next two are the ends, and more go on where fewer end, so that what was judged
    for a smaller number serves a larger one. Points that prune nothing are left out, and of those that prune the same
    number of weights all but the first, so there may be fewer than asked for.
    """
    first: dict[int, int] = {}
    for place, point in enumerate(points):
        if point.pruned:
            first.setdefault(point.pruned, place)
    scale = {place: math.log(pruned) for pruned, place in sorted(first.items())}
    if not scale or images < 1:
        return []
    middle = (min(scale.values()) + max(scale.values())) / 2
    found = [min(scale, key=lambda place: abs(scale[place] - middle))]
    while len(found) < min(images, len(scale)):
        free = [place for place in scale if place not in found]
        found.append(max(free, key=lambda place: min(abs(scale[place] - scale[other]) for other in found)))
    return sorted(found)


def choose(points: Sequence[SweepPoint], concept: str) -> tuple[list[SweepPoint], str]:
    """The points with the best of the judged ones marked, and a sentence that says why it is."""
    judged = [place for place, point in enumerate(points) if point.row is not None]
    if not judged:
        return list(points), "densities alone cannot choose a point: draw and judge some with --images 6"
    scores = [Score(p.name, p.density, p.erased or 0.0, p.kept or 0.0) for p in (points[place] for place in judged)]
    number, why = best(scores, concept)
    return [replace(point, chosen=place == judged[number]) for place, point in enumerate(points)], why
