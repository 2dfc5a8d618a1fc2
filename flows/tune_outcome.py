"""What tuning finds: the candidates as validation prompts show them, and the chosen and the preset on held-out ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flows.choosing import Score, left
from tasks.diffusion.spec import Branch

TABLE = "tunes"  # a row for each candidate of each tuning


@dataclass(frozen=True)
class Shares:
    """Accuracies of a judge on some prompts, before and after, with their 95 % intervals."""

    concept: Mapping[str, Any]  # {"before", "after", "change": {"value", "low", "high"}, "n", ...}
    others: Mapping[str, Any]

    @property
    def erased(self) -> float:
        """Share of the judge's hits on the concept that are gone."""
        return 1 - left(self.concept["before"]["value"], self.concept["after"]["value"])

    @property
    def kept(self) -> float:
        """Share of the others' accuracy that is left."""
        return left(self.others["before"]["value"], self.others["after"]["value"])


@dataclass(frozen=True)
class Candidate:
    """One setting of the edit."""

    sparsity: str
    t_hat: int
    vote_share: float
    branch: Branch
    density: float
    preset: bool = False
    edit: str | None = None  # its digest, once it was made
    url: str | None = None
    validation: Shares | None = None
    held_out: Shares | None = None
    chosen: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return f"k {self.sparsity}, t_hat {self.t_hat}, vote share {self.vote_share:g}, branch {self.branch}"

    @property
    def settings(self) -> tuple[str, int, float, Branch]:
        """What tells candidates apart."""
        return self.sparsity, self.t_hat, self.vote_share, self.branch

    def score(self, shares: Shares) -> Score:
        """How it does on some prompts."""
        return Score(self.name, self.density, shares.erased, shares.kept)

    def as_row(self) -> dict[str, Any]:
        """Its columns in the table of tunings."""
        names = ("t_hat", "vote_share", "branch", "density", "preset", "edit", "url", "chosen")
        out = {name: getattr(self, name) for name in names}
        out["sparsity"] = float(self.sparsity)
        for half in ("validation", "held_out"):
            shares = getattr(self, half)
            out |= {f"{half}_erased": shares and shares.erased, f"{half}_kept": shares and shares.kept}
        return out


@dataclass(frozen=True)
class TuneOutcome:
    """A tuning, for people and for JSON."""

    concept: str
    store: str
    keep: float  # share of their accuracy that others shall keep
    grid: int  # points of the grid
    candidates: Sequence[Candidate]  # those that were drawn and judged
    why: str
    held_out: str  # what the held-out prompts say of the choice
    beats: bool  # the preset, by the same rule on held-out prompts
    chart: str  # URL
    url: str  # of the chosen edit

    @property
    def chosen(self) -> Candidate:
        """The settings that were chosen."""
        return next(one for one in self.candidates if one.chosen)

    @property
    def preset(self) -> Candidate:
        """The catalog's settings."""
        return next(one for one in self.candidates if one.preset)

    def as_json(self) -> dict[str, Any]:
        """The command line's JSON document."""
        return {**vars(self), "candidates": [asdict(one) for one in self.candidates]}


def tune_of(document: Mapping[str, Any]) -> TuneOutcome:
    """The outcome that its JSON document describes."""

    def shares(found: Mapping[str, Any] | None) -> Shares | None:
        return None if found is None else Shares(**found)

    candidates = [
        Candidate(**{**one, "validation": shares(one["validation"]), "held_out": shares(one["held_out"])})
        for one in document["candidates"]
    ]
    return TuneOutcome(**{**document, "candidates": candidates})
