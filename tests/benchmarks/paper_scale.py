"""The paper's sizes, timed: everything up to a sparsity ranked once and masks from that, against the reference's way.

    python -m tests.benchmarks.paper_scale [--scale small] [--rounds 3] [--root FOLDER] [--json FILE]

Every part runs in a process of its own, in turn with the others, --rounds times; the table shows each one's best time
and highest peak of memory. The reference's way runs all steps of one site of each size; its time for the whole model is
that times the number of such sites. docs/benchmarks.md has a result and what it means.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

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


def summarise(found: list[Results], sites: dict[str, int], t_hat: int) -> Results:
    """The best seconds and the highest peak of each part; `sites` counts those of each width."""
    lines: dict[str, Results] = {}
    for result in found:
        for name, seconds in _seconds(result, sites, t_hat):
            line = lines.setdefault(f"{name}, threads {result['threads']}", {"seconds": seconds, "peak_bytes": 0})
            line["seconds"] = min(line["seconds"], seconds)
            line["peak_bytes"] = max(line["peak_bytes"], result["peak_bytes"])
    return {"lines": lines, "identical": _identical(found)}


def _applies(part: str, threads: int) -> bool:
    return threads == 1 or part not in THREADLESS


def _run(part: str, root: str, scale: str, threads: int, console: Console) -> Results:
    options = json.dumps({"root": root, "scale": scale, "threads": threads})
    console.print(f"{part}, threads {threads}", style="dim")
    command = [sys.executable, "-m", "tests.benchmarks.paper_parts", part, options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def _seconds(result: Results, sites: dict[str, int], t_hat: int) -> Iterator[tuple[str, float]]:
    """The (name, seconds) that one run gives."""
    part = result["part"]
    if part == "reference_way":
        union = sum(sites[width] * seconds for width, seconds in result["unions"].items())
        for steps in (t_hat, None):
            total = sum(sites[width] * sum(seconds[:steps]) for width, seconds in result["steps"].items())
            yield f"{part}, {f'first {steps}' if steps else 'all'} steps", total + union
        return
    if "seconds" in result:
        yield part, result["seconds"]
    for name in ("reading", "writing"):
        if name in result:
            yield f"{part}: {name}", result[name]
    for name, seconds in result.get("seconds_of", {}).items():
        yield f"{part} {name}", seconds


def _identical(found: list[Results]) -> bool:
    """Whether all masks of a site are the same, whoever made them."""
    digests: dict[str, set[str]] = {}
    for result in found:
        for site, digest in result.get("digests", {}).items():
            digests.setdefault(site, set()).add(digest)
    return bool(digests) and all(len(different) == 1 for different in digests.values())


def table(summary: Results) -> Table:
    """Every line, with how many times faster it is than the reference's way over all steps on as many threads."""
    shown = Table("part", "seconds", "peak MB", "times faster", title=f"masks identical: {summary['identical']}")
    whole = {
        threads: summary["lines"][f"reference_way, all steps, threads {threads}"]["seconds"] for threads in THREADS
    }
    for name, line in summary["lines"].items():
        compared = name.startswith(("rank, ", "mask_"))
        factor = f"{whole[int(name[-1])] / line['seconds']:,.0f}" if compared else ""
        shown.add_row(name, f"{line['seconds']:.3f}", f"{line['peak_bytes'] / 1e6:,.0f}", factor)
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
    summary = summarise(found, {str(size.width): size.sites for size in scale.sizes}, scale.t_hat)
    machine = {"system": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}
    if given.json:
        given.json.write_text(json.dumps({"machine": machine, **summary, "runs": found}, indent=1))
    Console().print(table(summary))
    return summary


if __name__ == "__main__":
    main()
