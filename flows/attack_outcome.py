"""What attacks bring back, for people and for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from storage.edits import Edit

TABLE = "attacks"  # a row for each attack on each edit


@dataclass(frozen=True)
class AttackRow:
    """One attack: the share of pictures that show the concept, by the edited model without it and with it."""

    concept: str
    edit: str
    attack: str
    budget: int
    seed: int
    before: float
    before_low: float
    before_high: float
    after: float
    after_low: float
    after_high: float
    unedited: float
    n: int
    judge: str  # sha256
    url: str

    @classmethod
    def of(cls, edit: Edit, result: Mapping[str, Any]) -> AttackRow:
        """The row of a judged attack."""
        numbers = result["numbers"]
        shares = {f"{name}{end}": numbers[name][key] for name in ("before", "after")
                  for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))}  # fmt: skip
        return cls(
            edit.concept, edit.id, result["attack"], result["budget"], result["seed"], **shares,
            unedited=result["unedited"]["value"], n=numbers["n"], judge=result["judge"]["sha256"], url=result["url"],
        )  # fmt: skip


@dataclass(frozen=True)
class AttackOutcome:
    """An edit's attacks."""

    concept: str
    edit: str
    url: str
    rows: Sequence[AttackRow]

    def as_json(self) -> dict[str, Any]:
        """The command line's JSON document."""
        return {**vars(self), "rows": [asdict(row) for row in self.rows]}


def attacks_of(document: Mapping[str, Any]) -> AttackOutcome:
    """The outcome that its JSON document describes."""
    return AttackOutcome(**{**document, "rows": [AttackRow(**row) for row in document["rows"]]})


def share_of(row: AttackRow, name: str) -> str:
    """A share with its interval for people."""
    value, low, high = (getattr(row, f"{name}{end}") * 100 for end in ("", "_low", "_high"))
    return f"{value:.0f} % {low:.0f}..{high:.0f}"
