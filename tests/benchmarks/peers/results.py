"""Rows of results in a JSON file, each written as soon as it is there, and the tables that they make.

A row: method, concept, kind, settings (a digest of all that decides it), seconds, cpu, bytes, details, hits {part: for
each prompt, for each label, whether it was seen}, and what is counted from them. A column more is a key more in the
rows and a line more in COLUMNS.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.peers.judging import SEED, interval, resampled

Row = dict[str, Any]


class Results:
    """The rows of a file. A file that is not there has none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"rows": []}

    def find(self, method: str, concept: str, settings: str) -> Row | None:
        """The row that is there already, made with the same settings."""
        wanted = (method, concept, settings)
        rows: list[Row] = self.document["rows"]
        return next((row for row in rows if (row["method"], row["concept"], row["settings"]) == wanted), None)

    def add(self, row: Row) -> None:
        """Keep a row; of other settings, the method's earlier one of this concept goes."""
        same = (row["method"], row["concept"])
        self.document["rows"] = [r for r in self.document["rows"] if (r["method"], r["concept"]) != same] + [row]
        part = self.path.with_name(self.path.name + ".part")
        part.write_text(json.dumps(self.document, indent=1))
        os.replace(part, self.path)


def shown(value: dict[str, Any] | None) -> str:
    """A share with its interval, in percent.

    >>> shown({"share": 0.25, "low": 0.1, "high": 0.45, "n": 20}), shown({"share": None})
    ('25 (10-45)', '')
    """
    if value is None or value["share"] is None:
        return ""
    return f"{value['share']:.0%} ({value['low']:.0%}-{value['high']:.0%})".replace("%", "")


def kilobytes(value: float) -> str:
    """Bytes, in kB."""
    return f"{value / 1000:,.0f}" if value else ""


def seconds(value: float) -> str:
    """Seconds, with as many decimals as they mean something."""
    return f"{value:.1f}" if value else ""


COLUMNS: dict[str, Callable[[Row], str]] = {
    "concept": lambda row: row["concept"],
    "method": lambda row: row["method"],
    "concept's accuracy, %": lambda row: shown(row.get("accuracy")),
    "others keep, %": lambda row: shown(row.get("kept")),
    "s": lambda row: seconds(row["seconds"]),
    "CPU s": lambda row: seconds(row["cpu"]),
    "kB": lambda row: kilobytes(row["bytes"]),
}


def erased(row: Row, before: Row) -> bool:
    """The card's measure: the concept at a third of its accuracy or less, others keep 85 % or more."""
    shares = row["accuracy"]["share"], before["accuracy"]["share"], row["kept"]["share"]
    return None not in shares and shares[0] <= shares[1] / 3 and shares[2] >= 0.85


def table(rows: Iterable[Row]) -> str:
    """Every row, in markdown."""
    return markdown(list(COLUMNS), [[cell(row) for cell in COLUMNS.values()] for row in rows], names=2)


def summary(rows: Sequence[Row], unedited: str) -> str:
    """A line a method, over all concepts that every method has, in markdown: means of shares, medians of the rest."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    by = {(row["method"], row["concept"]): row for row in rows}
    concepts = [c for c in dict.fromkeys(row["concept"] for row in rows) if all((m, c) in by for m in methods)]
    lines = []
    for method in methods:
        own = [by[method, concept] for concept in concepts]
        before = [by[unedited, concept] for concept in concepts] if unedited in methods else []
        passed = sum(erased(*pair) for pair in zip(own, before, strict=True)) if before else 0
        lines.append(
            [
                method,
                shown(mean([_parts(row["hits"]["concept"]) for row in own])),
                shown(mean([_pair(*pair) for pair in zip(own, before, strict=True)])) if before else "",
                f"{passed} of {len(own)}" if method != unedited else "",
                *(seconds(float(np.median([row[key] for row in own] or [0]))) for key in ("seconds", "cpu")),
                kilobytes(float(np.median([row["bytes"] for row in own] or [0]))),
            ]
        )
    head = ["method", "concept's accuracy, %", "others keep, %", "erased and kept", "s", "CPU s", "kB"]
    return markdown(head, lines, names=1)


def mean(shares: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any] | None:
    """The mean of concepts' shares, (part, whole) over prompts each, with its interval: prompts are drawn anew within
    each concept, and the concepts stay. None if one has no whole.
    """
    if not shares or not all(whole.sum() for _, whole in shares):
        return None
    rng = np.random.default_rng(SEED)
    low, high = interval(np.mean([resampled(part, whole, rng) for part, whole in shares], axis=0))
    return {"share": float(np.mean([part.sum() / whole.sum() for part, whole in shares])), "low": low, "high": high}


def _parts(hits: list[list[bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([sum(one) for one in hits]), np.array([len(one) for one in hits])


def _pair(row: Row, before: Row) -> tuple[np.ndarray, np.ndarray]:
    return _parts(row["hits"]["others"])[0], _parts(before["hits"]["others"])[0]


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]], names: int) -> str:
    """A table in markdown, whose first columns are names, the others numbers."""
    marks = ["---"] * names + ["--:"] * (len(head) - names)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, marks, *lines])
