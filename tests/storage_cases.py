"""Damage and its traces, on a disk or in an object store, for the tests of storage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from storage.places import Place
from storage.roots import Root
from storage.urls import filesystem, is_object, split

REPOSITORY = Path(__file__).parents[1]


def content(place: Place) -> bytes:
    """The bytes of a file that is there."""
    data = place.get()
    assert data is not None, place
    return data


def flip(place: Place, at: int | None = None) -> None:
    """Changes one bit, in the middle unless told."""
    data = bytearray(content(place))
    data[len(data) // 2 if at is None else at] ^= 1
    place.put(bytes(data))


def cut(place: Place) -> None:
    """Takes the last bytes away."""
    place.put(content(place)[:-9])


def empty(place: Place) -> None:
    """Takes all bytes away."""
    place.put(b"")


def delete(place: Place) -> None:
    """Takes the file away."""
    assert place.exists(), place
    place.delete()


def drafts(root: str) -> list[str]:
    """What is half written below a root: files and folders whose name begins with a dot, or uploads in parts."""
    url = Root(root).url
    if not is_object(url):
        return [str(path) for path in Path(url).rglob(".*") if path.name != ".lock"]
    bucket, key = split(url)
    reply = filesystem().call_s3("list_multipart_uploads", Bucket=bucket)  # some servers ignore Prefix
    return [upload["Key"] for upload in reply.get("Uploads", []) if upload["Key"].startswith(f"{key}/")]


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a new process, which inherits where S3 is."""
    return subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)


FORKS = """
import os, sys, signal
{setup}
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
for code in {codes!r}:
    child = os.fork()  # no thread has been started yet
    if not child:
        exec(code)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL, code
"""


def kill(setup: str, *codes: str) -> None:
    """Runs each code in a process of its own, which must kill itself by calling die()."""
    done = run(FORKS.format(setup=setup, codes=codes))
    assert done.returncode == 0, done.stderr


def interrupt_write(place: Place) -> None:
    """Leaves what a writer leaves that is killed before its file is whole."""
    if is_object(place.url):
        bucket, key = split(place.url)
        upload = filesystem().call_s3("create_multipart_upload", Bucket=bucket, Key=key)["UploadId"]
        filesystem().call_s3("upload_part", Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=b"half")
    else:
        Path(place.parent.url, f".{place.name}.0.tmp").write_bytes(b"half")
