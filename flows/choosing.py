"""The rule that settings of an edit are chosen by: the most erased of those whose others keep enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

KEEP = 0.95  # share of their accuracy that others shall keep


@dataclass(frozen=True)
class Score:
    """What settings do, as a judge saw it."""

    name: str  # of the settings, for people
    density: float  # share of the sites' weights that are pruned
    erased: float  # share of the judge's hits on the concept that are gone, 0 to 1
    kept: float  # share of the others' accuracy that is left, 0 to 1

    @property
    def harmonic(self) -> float:
        """Harmonic mean of what is erased and what others keep, 0 to 1."""
        both = self.erased + self.kept
        return 2 * self.erased * self.kept / both if both else 0.0

    def order(self, keep: float) -> tuple[bool, float, float]:
        """Grows with how good it is: first whether others keep enough, then what it erases, or the harmonic mean."""
        enough = self.kept >= keep
        return enough, self.erased if enough else self.harmonic, -self.density


def left(before: float | None, after: float | None) -> float:
    """Share of an accuracy that is left, 0 to 1; 1 where there was none to lose.

    >>> left(0.8, 0.2), left(0.5, 0.75), left(0.0, 0.0)
    (0.25, 1.0, 1.0)
    """
    return min(1.0, (after or 0) / before) if before else 1.0


def best(scores: Sequence[Score], concept: str, keep: float = KEEP) -> tuple[int, str]:
    """The place of the best, and a sentence that says why it is.

    Of those whose others keep at least `keep` of their accuracy the one that erases most, the lower density where two
    erase as much; if none keeps so much, the one with the best harmonic mean of erased and kept.
    """
    place = max(range(len(scores)), key=lambda i: scores[i].order(keep))
    found, keeping = scores[place], [score for score in scores if score.kept >= keep]
    numbers = f"{found.name} ({found.density:.2%} of the weights) erases {found.erased:.0%} of {concept}"
    if keeping:
        return place, (
            f"chosen: {numbers}, the most of the {len(keeping)} of {len(scores)} judged points whose others keep at "
            f"least {keep:.0%} of their accuracy; here they keep {found.kept:.0%}"
        )
    return place, (
        f"no judged point lets others keep {keep:.0%} of their accuracy, the best {max(s.kept for s in scores):.0%}; "
        f"chosen by the harmonic mean of erased and kept, {found.harmonic:.2f}: {numbers}, and others keep "
        f"{found.kept:.0%}"
    )
