"""Rankings and edits on a Dask cluster of worker processes, with the store in an object store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from flows.config import CatalogRequest
from flows.erase_concept import erase
from flows.plan import make_plan
from flows.rethreshold import plan_cuts
from flows.steps import Steps
from storage.roots import Root
from tasks.cuts import Cut
from tasks.editing import cut_chunk
from tests.erase_cases import ROOT, Case

pytestmark = [pytest.mark.slow, pytest.mark.s3]

CONCEPTS = ("fox", "apple", "rose")
SPARSITIES = [Decimal(k) / 100 for k in range(4, 44, 4)]


@contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command of Dask's, on loopback, killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


@contextmanager
def cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and two workers; yields the address and the workers' processes."""
    file = folder / "scheduler.json"
    scheduler = ("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
                 "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(file))  # fmt: skip
    worker = ("distributed.cli.dask_worker", "--scheduler-file", str(file), "--host", "127.0.0.1", "--nthreads", "1",
              "--dashboard-address", "127.0.0.1:0", "--no-nanny", "--local-directory", str(folder))  # fmt: skip
    with running(*scheduler) as manager:
        deadline = time.monotonic() + 60
        while not file.exists():
            assert manager.poll() is None, "the scheduler ended"
            assert time.monotonic() < deadline
            time.sleep(0.1)
        from distributed import Client

        with running(*worker) as one, running(*worker) as other, Client(scheduler_file=str(file)) as client:
            client.wait_for_workers(2, timeout=60)
            yield client.scheduler.address, [one, other]


def cuts(store: str) -> list[Cut]:
    """Thirty edits of three concepts, none of which is there."""
    request = CatalogRequest(store=store, evaluate=False, concepts=list(CONCEPTS))
    return [
        replace(cut, prune=replace(cut.prune, sparsity=sparsity))
        for cut in plan_cuts(request).cuts.values()
        for sparsity in SPARSITIES
    ]


def masks(made: list[Cut]) -> dict[str, tuple[str, int] | None]:
    """The sha256 and size of each edit's mask."""
    return {f"{cut.slug} {cut.draft.edit}": (cut.draft.folder / "mask.safetensors").sha256() for cut in made}


def listening(pid: int) -> set[str]:
    """The addresses that a process listens on, as /proc/net/tcp{,6} write them."""
    sockets = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in sockets:
                found.add(words[1].partition(":")[0])
    return found


def test_a_cluster_makes_the_same_edits_and_outlives_a_worker(
    case: Case, tmp_path: Path, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slug in CONCEPTS:
        erase(make_plan(case.request(Path(tmp_path / "local"), slug, evaluate=False)), Steps())
        erase(make_plan(case.request(s3_root, slug, evaluate=False)), Steps())  # type: ignore[arg-type]
    local, remote = cuts(str(tmp_path / "local")), cuts(s3_root)
    Root(s3_root).path("rankings").delete()
    assert cut_chunk.fn(local) == [None] * len(local)

    with cluster(tmp_path) as (address, workers):
        for worker in workers:
            assert listening(worker.pid) <= {"0100007F"}, "only 127.0.0.1"
        monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", address)
        errors: list[str | None] = []
        run = threading.Thread(target=lambda: errors.extend(cut_chunk.fn(remote)))
        run.start()
        while not any(cut.draft.published() for cut in remote[:: len(SPARSITIES)]):  # the first is done
            assert run.is_alive(), errors
        workers[0].send_signal(signal.SIGKILL)
        run.join(120)
        assert errors == [None] * len(remote)
    assert masks(remote) == masks(local)
    for cut in remote:
        edit = cut.draft.sealed()
        assert edit is not None
        edit.verify()
