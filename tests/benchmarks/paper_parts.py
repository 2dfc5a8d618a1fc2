"""The parts of the paper-scale benchmark, each run in a process of its own so that its peak memory is its own.

`python -m tests.benchmarks.paper_parts PART '{"root": ..., "scale": ..., "threads": ...}'` prints one JSON document:
times, peak_bytes and digests of masks. What a part needs from an earlier one it reads from the root, outside
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
GROWN = (1, 2, 4)  # concepts, and times the prompts, of one site of each size
GROWTH = max(GROWN)
REPEATS = 3  # of a mask, which is quick
Found = dict[str, Any]


class Clock:
    """Adds up the seconds spent in it, and those of CPU: of all threads, and without the waits for a core."""

    seconds = 0.0
    cpu = 0.0

    def __enter__(self) -> Clock:
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._start[0]
        self.cpu += time.process_time() - self._start[1]

    def add(self, other: Clock, times: int = 1) -> None:
        """Add what another clock found, so many times."""
        self.seconds += times * other.seconds
        self.cpu += times * other.cpu


def inputs(root: str, scale: Scale) -> Found:
    """Writes the synthetic stores."""
    with Clock() as clock:
        write_inputs(root, scale)
        write_inputs(f"{root}/growth", scale.one_of_each(scale.prompts * GROWTH))
    return _found({"inputs": clock})


def norms(root: str, scale: Scale) -> Found:
    """Norms of every site from the stored energies of both roles."""
    with Clock() as clock:
        found = {name: _norms(root, name) for name in scale.names()}
    arrays = {f"{name}/{i}": norm for name, pair in found.items() for i, norm in enumerate(pair)}
    np.savez(Path(root) / "norms.npz", **arrays)
    return _found({"norms": clock})


def rank(root: str, scale: Scale) -> Found:
    """The ranking of every site, all steps, up to the deepest sparsity; reading weights and storing are apart."""
    shutil.rmtree(Path(root) / "rankings", ignore_errors=True)  # a ranking that is there would not be written again
    reading, ranking, writing = Clock(), Clock(), Clock()
    store = rankings(root)
    _warm_up()
    for name, size in scale.names().items():
        with reading:
            weight = ModelStore(root, "model").weight(name)
        pair = _saved_norms(root, name)
        with ranking:
            found = rank_site(weight, *pair, candidates(scale.deepest, size.width))
        with writing:
            store.write(name, found.neuron, found.kept)
    return _found({"rank": ranking, "rank: read weights": reading, "rank: store": writing})


def mask_in_memory(root: str, scale: Scale) -> Found:
    """Masks of every site from rankings that are in memory."""
    store = rankings(root)
    held = {name: Ranking(*store.read(name)) for name in scale.names()}
    return _masks("mask, in memory", scale, lambda name, t_hat: held[name])


def mask_from_store(root: str, scale: Scale) -> Found:
    """Masks of every site from the stored ranking, a site at a time."""
    store = rankings(root)
    depths = store.depths()
    return _masks("mask, stored", scale, lambda name, t_hat: Ranking(*store.read(name, t_hat, depths)))


def reference_way(root: str, scale: Scale, threads: int) -> Found:
    """The reference's way for one sparsity: all steps of one site of each size, times the number of such sites."""
    import torch

    from tests.benchmarks.reference_way import step_matrix, union

    torch.set_num_threads(threads)
    first, every, digests = Clock(), Clock(), {}
    for name, size in scale.one_of_each().names().items():
        weight = torch.from_numpy(ModelStore(root, "model").weight(name))
        target, reference = (torch.from_numpy(norm) for norm in _saved_norms(root, name))
        count, matrices = candidates(scale.sparsity, size.width), []
        sites = next(alike.sites for alike in scale.sizes if alike.width == size.width)
        for step in range(scale.steps):
            with Clock() as clock:
                matrices.append(step_matrix(weight, target[step], reference[step], count))
            for total in (first, every) if step < scale.t_hat else (every,):
                total.add(clock, sites)
        with Clock() as clock:
            pruned = union(matrices, scale.t_hat)
        for total in (first, every):
            total.add(clock, sites)
        digests[name] = _digest(pruned.numpy())
    return _found(
        {f"reference's way, {scale.t_hat} steps": first, f"reference's way, {scale.steps} steps": every}, digests
    )


def grow_prompts(root: str, scale: Scale) -> Found:
    """Norms of one site of each size, from more and more prompts."""
    _norms(f"{root}/growth", next(iter(scale.one_of_each().names())), slice(0, 1))  # opens what is opened once
    clocks = {}
    for prompts in (scale.prompts * times for times in GROWN):
        with clocks.setdefault(f"grow: norms of {prompts} prompts", Clock()):
            for name in scale.one_of_each().names():
                _norms(f"{root}/growth", name, slice(0, prompts))
    return _found(clocks)


def grow_concepts(root: str, scale: Scale) -> Found:
    """Norms, rankings and a mask of one site of each size, for more and more concepts of their own prompts."""
    _warm_up()
    clocks = {}
    for concepts in GROWN:
        with clocks.setdefault(f"grow: all for {concepts} concepts", Clock()):
            for concept in range(concepts):
                slots = slice(scale.prompts * concept, scale.prompts * (concept + 1))
                for name, size in scale.one_of_each().names().items():
                    pair = _norms(f"{root}/growth", name, slots)
                    weight = ModelStore(f"{root}/growth", "model").weight(name)
                    ranked = rank_site(weight, *pair, candidates(scale.deepest, size.width))
                    mask(ranked, size.width, candidates(scale.sparsity, size.width), scale.t_hat)
    return _found(clocks)


def _found(clocks: dict[str, Clock], digests: dict[str, str] | None = None) -> Found:
    times = {name: {"seconds": clock.seconds, "cpu": clock.cpu} for name, clock in clocks.items()}
    return {"times": times, "digests": digests or {}}


def _norms(root: str, name: str, slots: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
    return role_norms(*(activations(root, role).energy(name).isel(prompt=slots) for role in ("target", "reference")))


def _saved_norms(root: str, name: str) -> list[np.ndarray]:
    with np.load(Path(root) / "norms.npz") as saved:
        return [saved[f"{name}/{i}"] for i in range(2)]


def _warm_up() -> None:
    """Compile the kernels and start Dask's threads outside the clock."""
    ones = np.ones((2, 8), np.float32)
    mask(rank_site(ones, ones, ones, 2), 8, 2, 1)


def _masks(what: str, scale: Scale, ranking: Callable[[str, int], Ranking]) -> Found:
    """Three masks of every site: the one that the reference's way makes, and two of all that is ranked."""
    _warm_up()
    best: dict[str, Clock] = {}
    digests = {}
    asked = (scale.sparsity, scale.t_hat, 0.0)
    for sparsity, t_hat, vote_share in (asked, (scale.deepest, scale.steps, 0.0), (scale.deepest, scale.steps, 0.5)):
        clocks = [Clock() for _ in range(REPEATS)]
        for clock in clocks:
            for name, size in scale.names().items():
                with clock:
                    pruned = mask(ranking(name, t_hat), size.width, candidates(sparsity, size.width), t_hat, vote_share)
                if (sparsity, t_hat, vote_share) == asked:
                    digests[name] = _digest(pruned)
        label = f"{what}: {sparsity}, {t_hat}, {vote_share:g}"
        best[label] = min(clocks, key=lambda clock: clock.seconds)
    return _found(best, digests)


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
