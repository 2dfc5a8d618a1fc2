"""The paper's sizes, timed: everything up to a sparsity ranked once and masks from that, against the reference's way.

    python -m tests.benchmarks.paper_scale [--scale small] [--rounds 3] [--root FOLDER] [--json FILE]

Every part runs in a process of its own, in turn with the others, --rounds times; the table shows each one's best time
and highest peak of memory; on a busy machine, go by the CPU seconds. A mask's three numbers are its sparsity, t_hat and
vote_share. The reference's way runs all steps of one site of each size, and its time for the whole model is that times
the number of such sites; the lines "grow" are of one site of each size alone. docs/benchmarks.md has a result and says
what it means.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from tests.benchmarks.paper_parts import SCALES

THREADS = (1, 2)
ROUND = ("norms", "rank", "mask_in_memory", "mask_from_store", "reference_way")
THREADLESS = ("mask_in_memory", "mask_from_store")  # a mask runs on one core
GROWTH = ("grow_prompts", "grow_concepts")
Results = dict[str, Any]


def measure(root: str, scale: str, rounds: int, console: Console) -> list[Results]:
    """What every run of every part found, in the order that they ran in."""
    found = [_run("inputs", root, scale, 1, console)]
    for _ in range(rounds):
        for part in ROUND:
            found += [_run(part, root, scale, threads, console) for threads in THREADS if _applies(part, threads)]
        found += [_run(part, root, scale, 1, console) for part in GROWTH]
    return found


def summarise(found: list[Results]) -> Results:
    """The best times and the highest peak of each line of each part."""
    lines: dict[str, Results] = {}
    for result in found:
        for name, times in result["times"].items():
            new = {**times, "peak_bytes": result["peak_bytes"]}
            line = lines.setdefault(f"{name} ({result['threads']})", new)
            for key, better in {"seconds": min, "cpu": min, "peak_bytes": max}.items():
                line[key] = better(line[key], new[key])
    return {"lines": lines, "identical": _identical(found)}


def _applies(part: str, threads: int) -> bool:
    return threads == 1 or part not in THREADLESS


def _run(part: str, root: str, scale: str, threads: int, console: Console) -> Results:
    options = json.dumps({"root": root, "scale": scale, "threads": threads})
    console.print(f"{part}, threads {threads}", style="dim")
    command = [sys.executable, "-m", "tests.benchmarks.paper_parts", part, options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def _identical(found: list[Results]) -> bool:
    """Whether all masks of a site are the same, whoever made them."""
    digests: dict[str, set[str]] = {}
    for result in found:
        for site, digest in result.get("digests", {}).items():
            digests.setdefault(site, set()).add(digest)
    return bool(digests) and all(len(different) == 1 for different in digests.values())


def table(summary: Results, whole: str) -> Table:
    """Every line, and against the line `whole` on as many threads: how many times faster, how many times less CPU."""
    shown = Table(Column("part (threads)", no_wrap=True), title=f"masks identical: {summary['identical']}")
    for column in ("s", "CPU s", "peak MB", "faster", "less CPU"):
        shown.add_column(column, justify="right", no_wrap=True)
    for name, line in summary["lines"].items():
        numbers = [f"{line['seconds']:.3f}", f"{line['cpu']:.3f}", f"{line['peak_bytes'] / 1e6:,.0f}"]
        if name.startswith(("rank (", "mask")):
            than = summary["lines"][f"{whole} ({name[-2]})"]
            numbers += [f"{than[key] / line[key]:,.0f}" for key in ("seconds", "cpu")]
        shown.add_row(name, *numbers)
    return shown


def main(arguments: list[str] | None = None) -> Results:
    """Measure, print the table, write the JSON document; return its summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="paper")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--root", help="where the synthetic stores go (3 GB); a temporary folder if not given")
    parser.add_argument("--json", type=Path, help="where everything that was found goes")
    given = parser.parse_args(arguments)
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given.root or folder, given.scale, given.rounds, console)
    scale = SCALES[given.scale]
    summary = summarise(found)
    machine = {"system": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}
    if given.json:
        given.json.write_text(json.dumps({"machine": machine, **summary, "runs": found}, indent=1))
    Console(width=110).print(table(summary, f"reference's way, {scale.steps} steps"))
    return summary


if __name__ == "__main__":
    main()
