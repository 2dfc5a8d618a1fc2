"""The parts of the paper-scale benchmark, each run in a process of its own so that its peak memory is its own.

`python -m tests.benchmarks.paper_parts PART '{"root": ..., "scale": ..., "threads": ...}'` prints one JSON document:
seconds, peak_bytes and what else the part found. What a part needs from an earlier one it reads from the root, outside
the clock.
"""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np

from storage.models import ModelStore
from tasks.pruning.masks import candidates, mask
from tasks.pruning.norms import role_norms
from tasks.pruning.rankings import Ranking, rank_site
from tests.benchmarks.paper_sizes import PAPER, SMALL, Scale, activations, rankings, write_inputs

SCALES = {"paper": PAPER, "deep": replace(PAPER, deepest="0.2"), "small": SMALL}
GROWTH = 4  # concepts, and times the prompts, that growth is measured up to
REPEATS = 3  # of a mask, which is quick
Found = dict[str, Any]


class Clock:
    """Adds up the seconds spent in it."""

    seconds = 0.0

    def __enter__(self) -> Clock:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._start


def inputs(root: str, scale: Scale) -> Found:
    """Writes the synthetic stores."""
    with Clock() as clock:
        write_inputs(root, scale)
        write_inputs(f"{root}/growth", scale.one_of_each(scale.prompts * GROWTH))
    return {"seconds": clock.seconds}


def norms(root: str, scale: Scale) -> Found:
    """Norms of every site from the stored energies of both roles."""
    with Clock() as clock:
        found = {name: _norms(root, name) for name in scale.names()}
    np.savez(
        Path(root) / "norms.npz", **{f"{name}/{i}": norm for name, pair in found.items() for i, norm in enumerate(pair)}
    )
    return {"seconds": clock.seconds}


def rank(root: str, scale: Scale) -> Found:
    """The ranking of every site, all steps, up to the deepest sparsity; reading weights and storing are apart."""
    reading, ranking, writing, by_width = Clock(), Clock(), Clock(), dict[int, float]()
    shutil.rmtree(Path(root) / "rankings", ignore_errors=True)  # a ranking that is there would not be written again
    store = rankings(root)
    _warm_up()
    for name, size in scale.names().items():
        with reading:
            weight = ModelStore(root, "model").weight(name)
        before, pair = ranking.seconds, _saved_norms(root, name)
        with ranking:
            found = rank_site(weight, *pair, candidates(scale.deepest, size.width))
        by_width[size.width] = by_width.get(size.width, 0) + ranking.seconds - before
        with writing:
            store.write(name, found.neuron, found.kept)
    return {
        "seconds": ranking.seconds,
        "reading": reading.seconds,
        "writing": writing.seconds,
        "by_width": by_width,
    }


def mask_in_memory(root: str, scale: Scale) -> Found:
    """Masks of every site from rankings that are in memory."""
    store = rankings(root)
    held = {name: Ranking(*store.read(name)) for name in scale.names()}
    return _masks(scale, lambda name, t_hat: held[name])


def mask_from_store(root: str, scale: Scale) -> Found:
    """Masks of every site from the stored ranking, a site at a time."""
    store = rankings(root)
    depths = store.depths()
    return _masks(scale, lambda name, t_hat: Ranking(*store.read(name, t_hat, depths)))


def reference_way(root: str, scale: Scale, threads: int) -> Found:
    """The reference's way for one sparsity, on one site of each size: seconds of each step, and of the union."""
    import torch

    from tests.benchmarks.reference_way import step_matrix, union

    torch.set_num_threads(threads)
    steps: dict[int, list[float]] = {}
    unions, digests = {}, {}
    for name, size in scale.one_of_each().names().items():
        weight = torch.from_numpy(ModelStore(root, "model").weight(name))
        target, reference = (torch.from_numpy(norm) for norm in _saved_norms(root, name))
        count, matrices, steps[size.width] = candidates(scale.sparsity, size.width), [], []
        for step in range(scale.steps):
            with Clock() as clock:
                matrices.append(step_matrix(weight, target[step], reference[step], count))
            steps[size.width].append(clock.seconds)
        with Clock() as clock:
            pruned = union(matrices, scale.t_hat)
        unions[size.width] = clock.seconds
        digests[name] = _digest(pruned.numpy())
    return {"steps": steps, "unions": unions, "digests": digests}


def grow_prompts(root: str, scale: Scale) -> Found:
    """Norms of one site of each size, from more and more prompts."""
    _norms(f"{root}/growth", next(iter(scale.one_of_each().names())), slice(0, 1))  # opens what is opened once
    found = {}
    for times in (1, 2, GROWTH):
        with Clock() as clock:
            for name in scale.one_of_each().names():
                _norms(f"{root}/growth", name, slice(0, scale.prompts * times))
        found[scale.prompts * times] = clock.seconds
    return {"seconds_of": found}


def grow_concepts(root: str, scale: Scale) -> Found:
    """Norms, rankings and a mask of one site of each size, for more and more concepts of their own prompts."""
    _warm_up()
    found = {}
    for concepts in (1, 2, GROWTH):
        with Clock() as clock:
            for concept in range(concepts):
                slots = slice(scale.prompts * concept, scale.prompts * (concept + 1))
                for name, size in scale.one_of_each().names().items():
                    pair = _norms(f"{root}/growth", name, slots)
                    weight = ModelStore(f"{root}/growth", "model").weight(name)
                    ranked = rank_site(weight, *pair, candidates(scale.deepest, size.width))
                    mask(ranked, size.width, candidates(scale.sparsity, size.width), scale.t_hat)
        found[concepts] = clock.seconds
    return {"seconds_of": found}


def _norms(root: str, name: str, slots: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
    return role_norms(*(activations(root, role).energy(name).isel(prompt=slots) for role in ("target", "reference")))


def _saved_norms(root: str, name: str) -> list[np.ndarray]:
    with np.load(Path(root) / "norms.npz") as saved:
        return [saved[f"{name}/{i}"] for i in range(2)]


def _warm_up() -> None:
    """Compile the kernels and start Dask's threads outside the clock."""
    ones = np.ones((2, 8), np.float32)
    mask(rank_site(ones, ones, ones, 2), 8, 2, 1)


def _masks(scale: Scale, ranking: Callable[[str, int], Ranking]) -> Found:
    _warm_up()
    seconds, digests = {}, {}
    asked = (scale.sparsity, scale.t_hat, 0.0)
    for sparsity, t_hat, vote_share in (asked, (scale.deepest, scale.steps, 0.0), (scale.deepest, scale.steps, 0.5)):
        clocks = [Clock() for _ in range(REPEATS)]
        for clock in clocks:
            for name, size in scale.names().items():
                with clock:
                    pruned = mask(ranking(name, t_hat), size.width, candidates(sparsity, size.width), t_hat, vote_share)
                if (sparsity, t_hat, vote_share) == asked:
                    digests[name] = _digest(pruned)
        seconds[f"k {sparsity}, t_hat {t_hat}, vote_share {vote_share:g}"] = min(clock.seconds for clock in clocks)
    return {"seconds_of": seconds, "digests": digests}


def _digest(pruned: np.ndarray) -> str:
    return hashlib.sha256(np.packbits(pruned)).hexdigest()


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


PARTS: dict[str, Callable[..., Found]] = {
    part.__name__: part
    for part in (
        inputs,
        norms,
        rank,
        mask_in_memory,
        mask_from_store,
        reference_way,
        grow_prompts,
        grow_concepts,
    )
}


def main(part: str, options: str) -> None:
    """Run a part and print what it found."""
    given = json.loads(options)
    scale, threads = SCALES[given["scale"]], given["threads"]
    extra = {"threads": threads} if part == "reference_way" else {}
    with dask.config.set(scheduler="threads", num_workers=threads):
        found = PARTS[part](given["root"], scale, **extra)
    print(json.dumps({"part": part, "threads": threads, **found, "peak_bytes": _peak_bytes()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
