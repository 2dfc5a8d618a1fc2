"""What a run leaves behind: the summary of an edit that people see."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from storage.edits import Edit


@dataclass(frozen=True)
class Outcome:
    """A sealed edit, for people and for JSON."""

    url: str
    concept: str
    edit: str
    manifest: Mapping[str, Any]
    report: Mapping[str, Any]

    @classmethod
    def of(cls, edit: Edit) -> Outcome:
        """The outcome that an edit's own files tell."""
        return cls(str(edit.path), edit.concept, edit.id, edit.manifest, json.loads(edit.read("report.json")))

    @property
    def pruned(self) -> tuple[int, int]:
        """Pruned weights, and the weights of all sites."""
        sites = self.report["sites"].values()
        return sum(site["pruned"] for site in sites), sum(site["weights"] for site in sites)

    @property
    def sheet(self) -> str | None:
        """The contact sheet's path, when the edit was evaluated."""
        return f"{self.url}/images/sheet.png" if self.report["evaluation"] else None

    def as_json(self) -> dict[str, Any]:
        """The command line's JSON document."""
        return {"url": self.url, "edit": self.edit, "concept": self.concept, "sheet": self.sheet,
                "prune": self.manifest["prune"], "report": dict(self.report)}  # fmt: skip


def rows(outcome: Outcome) -> list[tuple[str, str, str, str]]:
    """The table of an evaluation: what, before, after, over how many judgements."""
    evaluation = outcome.report["evaluation"]
    out = []
    for part in ("concept", "others") if evaluation else ():
        found = evaluation[part]
        name = outcome.concept if part == "concept" else "others"
        out.append((name, f"{found['before']:.0%}", f"{found['after']:.0%}", str(found["n"])))
        for group, shares in found["groups"].items() if part == "others" else ():
            out.append((f"  {group}", f"{shares['before']:.0%}", f"{shares['after']:.0%}", str(shares["n"])))
        if verdict := evaluation.get("safety", {}).get(part):
            shares = (f"{len(verdict[when]) / verdict['n']:.0%}" for when in ("before", "after"))
            out.append((f"{name}, flagged unsafe", *shares, str(verdict["n"])))
    return out
