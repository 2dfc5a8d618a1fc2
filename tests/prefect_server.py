"""A real Prefect server on SQLite and its workers, in processes of their own, for the tests of deployments."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[1]
PREFECT = [sys.executable, "-m", "prefect"]
START = 240  # s; a new home takes 25 s on two idle cores
DEATH = "exceeded its memory allocation"  # what Prefect suspects, and writes into the log, at each SIGKILL
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass(frozen=True)
class Server:
    """One that runs."""

    url: str  # of its API
    folder: Path
    environment: Mapping[str, str]

    def prefect(self, *words: object) -> str:
        """Run Prefect's command line, which must succeed; returns what it said."""
        code, said = self.ask(*words)
        assert code == 0, said
        return said

    def ask(self, *words: object) -> tuple[int, str]:
        """Run Prefect's command line: exit code, and what it said."""
        command = [*PREFECT, *map(str, words)]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=240,
        )  # fmt: skip
        return done.returncode, done.stdout

    def set_up(self) -> None:
        """What infra/setup.sh does; its `prefect` is ours."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{self.environment['PATH']}"
        subprocess.run(["infra/setup.sh"], cwd=ROOT, env={**self.environment, "PATH": path}, check=True, timeout=240)

    def run(self, deployment: str, request: Mapping[str, Any], *words: object) -> str:
        """Create a run of a deployment for a request; returns its id."""
        return run_id(
            self.prefect("deployment", "run", deployment, "--param", f"request={json.dumps(request)}", *words)
        )

    def get(self, path: str) -> Any:
        """What the API answers to a GET."""
        return httpx.get(f"{self.url}/{path}").raise_for_status().json()

    def find(self, what: str, **filters: Any) -> list[Any]:
        """What the API finds: flow_runs, task_runs, artifacts, deployments."""
        return list(httpx.post(f"{self.url}/{what}/filter", json=filters).raise_for_status().json())

    def limit(self, name: str, slots: int, active: bool = True) -> None:
        """Create a global concurrency limit."""
        own = {"name": name, "limit": slots, "active": active}
        httpx.post(f"{self.url}/v2/concurrency_limits/", json=own).raise_for_status()

    def state(self, run: str) -> str:
        """The type of a run's state."""
        return str(self.get(f"flow_runs/{run}")["state_type"])

    def end(self, run: str, seconds: float = 240) -> dict[str, Any]:
        """The run, once it has ended."""
        wait_until(lambda: self.state(run) in FINAL, seconds, f"run {run} to end")
        return dict(self.get(f"flow_runs/{run}"))

    def kill(self, run: str) -> None:
        """kill -9 of the process that a run is; returns when its worker is through with that.

        Prefect 3.8.8 reports the death twice, some seconds apart: the second time would hit one that is being retried.
        """
        before = self.log().count(DEATH)
        pid = str(self.get(f"flow_runs/{run}")["infrastructure_pid"])
        os.kill(int(pid.rpartition(":")[2]), signal.SIGKILL)
        wait_until(lambda: self.log().count(DEATH) == before + 2, 60, "the worker")

    def log(self) -> str:
        """What the server and its workers said."""
        return "\n".join(path.read_text("utf-8") for path in sorted(self.folder.glob("*.log")))


@contextmanager
def serving(folder: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    """A server with a new database in `folder` while the block runs; what it starts finds `environment` in its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    own = {
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": "1",
    }
    server = Server(url, folder, {**os.environ, **own, **environment})
    with _process(server, "server", "server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui") as process:
        wait_until(lambda: _healthy(url) or process.poll() is not None, START, "the server")
        assert process.poll() is None, server.log()
        yield server


@contextmanager
def working(server: Server, *pools: str) -> Iterator[None]:
    """A process worker for each pool while the block runs. A --limit would make it die of a retry (infra/README.md)."""
    with ExitStack() as stack:
        for pool in pools:
            words = ("worker", "start", "--pool", pool, "--type", "process", "--name", f"{pool}-worker")
            stack.enter_context(_process(server, f"{pool}-worker", *words))
        yield


def run_id(said: str) -> str:
    """The id of the run that a command says it created."""
    found = re.search(r"UUID: ([0-9a-f-]{36})", said)
    assert found, said
    return found[1]


def wait_until(true: Callable[[], bool], seconds: float, what: str) -> None:
    """Returns when it is true; fails after so many seconds. It asks seldom: runs need the machine more."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.5)


@contextmanager
def _process(server: Server, name: str, *words: object) -> Iterator[subprocess.Popen[bytes]]:
    """Prefect's command line in a session of its own, which ends with the block, in whatever way that ends."""
    with (server.folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [*PREFECT, *map(str, words)], cwd=ROOT, env=server.environment, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    with suppress(psutil.NoSuchProcess):  # runs are processes below their worker, in sessions of their own
        below = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
        for one in below:
            with suppress(psutil.NoSuchProcess):
                one.kill()
    process.kill()
    process.wait()


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").is_success
    except httpx.TransportError:
        return False
