"""Rows of edits for tables/edits: what pandas, polars or DuckDB read of a catalog's results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from flows.outcome import Outcome
from storage import tables
from storage.edits import Edit
from storage.parallel import at_once

TABLE = "edits"


@dataclass(frozen=True)
class EditRow:
    """One concept and edit."""

    concept: str
    edit: str
    url: str
    model: str
    profile: str  # empty if several concepts of unlike profiles were combined
    reference: str | None  # digests of the prompt sets; null, as are the settings, if concepts were combined
    target: str | None
    sparsity: float | None
    t_hat: int | None
    vote_share: float | None
    branch: str | None
    prompts: str | None  # slots that counted; null = all
    combined: str | None  # the edits that it combines, "fox@<edit> + panda@<edit> - owl@<edit>"; null: none
    sites: int
    weights: int
    pruned: int
    density: float  # share of the sites' weights that are pruned
    concept_before: float | None  # share of the judge's verdicts that name what was asked for
    concept_after: float | None
    concept_n: int | None
    others_before: float | None
    others_after: float | None
    others_n: int | None
    judge: str | None  # sha256
    seconds: float  # of the run that made it
    bytes_mask: int
    bytes_delta: int
    bytes_images: int
    created: datetime

    @classmethod
    def of(cls, edit: Edit) -> EditRow:
        """The row of a published edit, from its own files. Raises CorruptEdit."""
        outcome = Outcome.of(edit)
        manifest, report, (pruned, weights) = edit.manifest, outcome.report, outcome.pruned
        prune, sets, judged = manifest["prune"], manifest["prompt_sets"], report["evaluation"] or {}
        shares = {f"{part}_{key}": judged.get(part, {}).get(key)
                  for part in ("concept", "others") for key in ("before", "after", "n")}  # fmt: skip
        return cls(
            concept=edit.concept, edit=edit.id, url=str(edit.path), model=manifest["model"]["key"],
            profile=manifest["profile"], reference=sets.get("reference"), target=sets.get("target"),
            sparsity=None if "combined" in prune else float(Decimal(prune["sparsity"])), t_hat=prune.get("t_hat"),
            vote_share=prune.get("vote_share"), branch=prune.get("branch"), prompts=prune.get("prompts"),
            combined=parts(prune) if "combined" in prune else None, sites=len(report["sites"]), weights=weights,
            pruned=pruned, density=pruned / weights, **shares, judge=judged.get("judge", {}).get("sha256"),
            seconds=round(sum(report["seconds"].values()), 3), bytes_mask=report["bytes"]["mask"],
            bytes_delta=report["bytes"]["delta"], bytes_images=report["bytes"]["images"],
            created=datetime.fromisoformat(manifest["created"]),
        )  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """The row as JSON values."""
        return {**asdict(self), "created": self.created.isoformat()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> EditRow:
        """The row that its JSON values describe."""
        return cls(**{**row, "created": datetime.fromisoformat(row["created"])})


COLUMNS = tables.columns_of(EditRow)


def parts(prune: Mapping[str, Any]) -> str:
    """The edits that a combined edit's manifest names, what is protected with a minus.

    >>> parts({"combined": {"erase": {"fox": "12ab", "panda": "34cd"}, "protect": {"owl": "56ef"}}})
    'fox@12ab + panda@34cd - owl@56ef'
    """
    erase, protect = ([f"{slug}@{edit}" for slug, edit in sorted(prune["combined"][role].items())]
                      for role in ("erase", "protect"))  # fmt: skip
    return " + ".join(erase) + "".join(f" - {part}" for part in protect)


def settings(prune: Mapping[str, Any]) -> str:
    """What made an edit, for people: the settings of its mask, or the edits that it combines."""
    if "combined" in prune:
        return f"combined of {parts(prune)}"
    return (
        f"sparsity {prune['sparsity']}, t_hat {prune['t_hat']}, vote_share {prune['vote_share']}, "
        f"branch {prune['branch']}"
    )


@dataclass(frozen=True)
class CatalogOutcome:
    """What a run over several concepts leaves behind, for people and for JSON."""

    name: str  # of the catalog, or of the run
    store: str
    rows: Sequence[EditRow]  # of every concept that has its edit
    failed: Mapping[str, str]  # slug: why
    captured: int  # sets that this run captured, or went on with
    made: int  # edits that this run made

    def as_json(self) -> dict[str, Any]:
        """The command line's JSON document."""
        return {**vars(self), "failed": dict(self.failed), "rows": [row.as_json() for row in self.rows]}

    def failure(self) -> ConceptsFailed | None:
        """What the run failed of; None if no concept did."""
        return ConceptsFailed(self) if self.failed else None


def outcome_of(document: Mapping[str, Any]) -> CatalogOutcome:
    """The outcome that its JSON document describes."""
    return CatalogOutcome(**{**document, "rows": [EditRow.from_json(row) for row in document["rows"]]})


class ConceptsFailed(RuntimeError):
    """Some concepts failed; the others are done."""

    def __init__(self, outcome: CatalogOutcome) -> None:
        reasons = "; ".join(f"{slug}: {why}" for slug, why in outcome.failed.items())
        number = len(outcome.failed)
        super().__init__(f"{number} of {number + len(outcome.rows)} concepts failed. {reasons}")
        self.outcome = outcome


def table_edits(store: str, edits: Sequence[Edit]) -> list[EditRow]:
    """The rows of published edits; those that the store's table lacks join it."""
    rows = at_once(EditRow.of, edits)
    known = tables.values(store, TABLE, "url")
    tables.write_rows(store, TABLE, [asdict(row) for row in rows if row.url not in known], COLUMNS)
    return rows
