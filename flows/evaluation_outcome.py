"""What an evaluation finds: numbers with intervals, each with what it was taken by and over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from storage.edits import Edit

TABLE = "evaluations"  # a row for each number of each evaluation


@dataclass(frozen=True)
class NumberRow:
    """One number: a metric over the images of some prompts, or over a group of their labels."""

    concept: str
    edit: str
    url: str  # of the measurement, which says all that it depends on
    metric: str
    part: str  # what the prompts are of
    group: str  # of labels; "" = all
    before: float | None  # None of a distance, which is one number between both
    before_low: float | None
    before_high: float | None
    after: float  # or the distance
    after_low: float
    after_high: float
    change: float | None
    change_low: float | None
    change_high: float | None
    n: int  # judgements
    images: int
    detector: str  # sha256 of what judged
    threshold: float | None

    @property
    def share(self) -> bool:
        """Whether it is a share of judgements, 0 to 1, that people read in per cent."""
        return self.metric in ("classifier", "clip-accuracy", "nudenet", "safety", "copies")


@dataclass(frozen=True)
class EvaluationOutcome:
    """An evaluation, for people and for JSON."""

    concept: str
    edit: str
    url: str  # of the edit
    store: str
    rows: Sequence[NumberRow]
    measurements: Sequence[Mapping[str, Any]]

    @classmethod
    def of(
        cls, edit: Edit, store: str, measurements: Sequence[Mapping[str, Any]], rows: Sequence[NumberRow]
    ) -> EvaluationOutcome:
        """The outcome of an edit's measurements."""
        return cls(edit.concept, edit.id, str(edit.path), store, rows, measurements)

    def as_json(self) -> dict[str, Any]:
        """The command line's JSON document."""
        return {**vars(self), "rows": [asdict(row) for row in self.rows], "measurements": list(self.measurements)}


def outcome_of(document: Mapping[str, Any]) -> EvaluationOutcome:
    """The outcome that its JSON document describes."""
    return EvaluationOutcome(**{**document, "rows": [NumberRow(**row) for row in document["rows"]]})


def rows_of(edit: Edit, measurement: Mapping[str, Any]) -> list[NumberRow]:
    """The numbers of a measurement: over all, then by group."""
    numbers, about = measurement["numbers"], measurement["about"]
    common = {
        "concept": edit.concept, "edit": edit.id, "url": measurement["url"], "metric": measurement["metric"],
        "part": measurement["part"], "detector": about["sha256"], "threshold": about.get("threshold"),
    }  # fmt: skip
    if "distance" in numbers:
        found = {**_interval("after", numbers["distance"]), **_interval("before", None), **_interval("change", None)}
        return [NumberRow(**common, group="", **found, n=numbers["distance"]["n"], images=numbers["images"])]
    groups = {"": numbers, **numbers.get("groups", {})}
    return [
        NumberRow(**common, group=group, n=one["n"], images=one["images"],
                  **{k: v for name in ("before", "after", "change") for k, v in _interval(name, one[name]).items()})
        for group, one in groups.items()
    ]  # fmt: skip


def _interval(name: str, found: Mapping[str, float] | None) -> dict[str, Any]:
    parts = {"": "value", "_low": "low", "_high": "high"}
    return {f"{name}{suffix}": None if found is None else found[key] for suffix, key in parts.items()}


def text_of(row: NumberRow, name: str) -> str:
    """A number with its interval for people: "20 % 5..40", "0.31 0.29..0.33", or "" where there is none."""
    value, low, high = (getattr(row, f"{name}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return ""
    if row.share:
        sign = "+" if name == "change" and value > 0 else ""
        return f"{sign}{value * 100:.0f} % {low * 100:.0f}..{high * 100:.0f}"
    return f"{value:.3g} {low:.3g}..{high:.3g}"
