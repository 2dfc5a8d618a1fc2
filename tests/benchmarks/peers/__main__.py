"""Compares ways of erasing concepts from the bundled model; see the package's docstring."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from flows.config import DEMO, Request
from storage.names import digest
from tasks.catalogs import load_catalog
from tests.benchmarks.peers import judging
from tests.benchmarks.peers.methods import BUDGETS, METHODS, UNEDITED, Case, opened
from tests.benchmarks.peers.results import Results, Row, summary, table


def compare(case: Case, names: list[str], results: Results) -> list[Row]:
    """A concept's rows, one a method, the unedited model's first; those that are there already are taken as found."""
    rows: list[Row] = []
    for name in names:
        settings = digest([case.judged(), METHODS[name].settings(case)])
        row = results.find(name, case.concept.slug, settings)
        if row is None:
            row = {**measure(case, name, rows[0] if rows else None), "settings": settings}
            results.add(row)
        rows.append(row)
    return rows


def measure(case: Case, name: str, before: Row | None) -> Row:
    """Make a method's edit, draw with it and count; `before` is the unedited model's row, None if this is it."""
    print(f"{case.concept.slug}: {name}", file=sys.stderr, flush=True)
    made = METHODS[name].make(case)
    spec, folder = case.plan.capture.spec, case.plan.request.judge_path
    with made.on(case.pipe):
        hits = {part: judging.judge(case.pipe, asked, spec, folder) for part, asked in case.expected.items()}
    unedited = before["hits"] if before else hits
    return {
        "method": name,
        "concept": case.concept.slug,
        "kind": case.concept.kind,
        "accuracy": judging.accuracy(hits["concept"]),
        "others": judging.accuracy(hits["others"]),
        "kept": judging.kept(hits["others"], unedited["others"]),
        "seconds": round(made.clock.seconds, 3),
        "cpu": round(made.clock.cpu, 3),
        "bytes": made.bytes,
        "details": made.details,
        "hits": hits,
    }


def machine() -> dict[str, Any]:
    """Where this runs."""
    return {"system": platform.platform(), "cores": os.cpu_count(), "threads": torch.get_num_threads(),
            "python": platform.python_version(), "torch": torch.__version__}  # fmt: skip


def main(arguments: list[str] | None = None) -> list[Row]:
    """Compare, keep the rows in --out, print the tables; return the rows."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers", description=__doc__)
    parser.add_argument("--concepts", help="slugs by commas; all of the catalog's if left out")
    parser.add_argument("--methods", help="by commas; all if left out. The unedited model is always judged")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the rows; those that it has are not run")
    parser.add_argument("--catalog", default=DEMO, help="built-in name or file")
    parser.add_argument("--budget", choices=BUDGETS, default="full", help="small: only to see that it runs")
    given = parser.parse_args(arguments)
    asked = given.methods.split(",") if given.methods else list(METHODS)
    if unknown := sorted(set(asked) - set(METHODS)):
        parser.error(f"no method {', '.join(unknown)}; there are {', '.join(METHODS)}")
    names = [UNEDITED, *(name for name in METHODS if name in asked and name != UNEDITED)]
    catalog = load_catalog(Request(concept="any", catalog=given.catalog).catalog_url)
    slugs = given.concepts.split(",") if given.concepts else [concept.slug for concept in catalog]
    results = Results(given.out)
    results.document["machine"] = machine()
    rows = []
    for slug in slugs:
        with opened(catalog[slug].slug, given.catalog, BUDGETS[given.budget]) as case:
            rows += compare(case, names, results)
    print(f"{summary(rows, UNEDITED)}\n\n{table(rows)}")
    return rows


if __name__ == "__main__":
    main()
