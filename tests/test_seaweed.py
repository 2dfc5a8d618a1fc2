"""The S3 server of the tests, and the proxy before it: that they do what other tests take for granted."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import botocore.session
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError, ResponseStreamingError

from tests.fault_proxy import FaultProxy
from tests.seaweed import Seaweed, running

pytestmark = pytest.mark.s3

BODY = bytes(range(256)) * 1000


@pytest.fixture
def client(s3_server):
    return s3_server.client()


@pytest.fixture
def place(s3_server, s3_root):
    """Bucket and Key of an object that is not there yet."""
    return {"Bucket": s3_server.bucket, "Key": s3_root.rpartition("/")[2] + "/key with a space+é"}


@pytest.fixture
def proxy(s3_server):
    with FaultProxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def proxied(s3_server, proxy):
    """A client that goes through the proxy, tries once and waits half a second."""
    return s3_server.client(proxy.endpoint, read_timeout=0.5)


def get(client, place):
    return client.get_object(**place)["Body"].read()


def listens(server):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", server.port)) == 0


def refusal(call, **arguments):
    """The HTTP status that a call is refused with."""
    with pytest.raises(ClientError) as error:
        call(**arguments)
    return error.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_the_standard_chain_leads_to_it(s3_root, place):
    client = botocore.session.Session().create_client("s3")
    client.put_object(**place, Body=BODY)
    assert get(client, place) == BODY


def test_other_keys_are_refused(s3_server, place):
    other = Seaweed(s3_server.folder / "elsewhere")
    assert refusal(other.client(s3_server.endpoint).put_object, **place, Body=BODY) == 403


def test_its_secret_is_not_shown(s3_server):
    assert s3_server.secret_key not in repr(s3_server)


def test_what_put_confirmed_survives_a_crash_and_another_start():
    with running() as server:
        server.client().put_object(Bucket=server.bucket, Key="k", Body=BODY)
        server.kill()
        again = Seaweed(server.folder)
        again.start()
        try:
            assert again.environment() == server.environment()
            assert get(again.client(), {"Bucket": server.bucket, "Key": "k"}) == BODY
        finally:
            again.kill()


def test_a_folder_has_one_server(s3_server):
    with pytest.raises(RuntimeError, match="another server runs over"):
        Seaweed(s3_server.folder).start()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")
def test_it_listens_on_loopback_only(s3_server):
    descriptors = Path(f"/proc/{s3_server.process.pid}/fd").iterdir()
    own = {link.name for link in (descriptor.readlink() for descriptor in descriptors)}
    addresses = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in own:  # 0A: it listens
                addresses.append(local.partition(":")[0])
    assert set(addresses) == {"0100007F"}  # 127.0.0.1 in the machine's byte order


def test_a_conditional_put_creates_but_does_not_replace(client, place):
    client.put_object(**place, Body=BODY, IfNoneMatch="*")
    assert refusal(client.put_object, **place, Body=b"other", IfNoneMatch="*") == 412
    assert get(client, place) == BODY


def test_a_conditional_put_replaces_only_what_was_read(client, place):
    old = client.put_object(**place, Body=b"old")["ETag"]
    new = client.put_object(**place, Body=BODY, IfMatch=old)["ETag"]
    assert refusal(client.put_object, **place, Body=b"late", IfMatch=old) == 412
    assert new == client.head_object(**place)["ETag"]
    assert get(client, place) == BODY


def test_a_conditional_put_replaces_nothing_that_is_gone(client, place):
    old = client.put_object(**place, Body=b"old")["ETag"]
    client.delete_object(**place)
    assert refusal(client.put_object, **place, Body=b"late", IfMatch=old) in (404, 412)


def test_slow_down_as_often_as_asked(proxy, proxied, client, place):
    proxy.add("slow_down", "PUT", times=2)
    assert refusal(proxied.put_object, **place, Body=BODY) == 503
    assert refusal(proxied.put_object, **place, Body=BODY) == 503
    assert refusal(client.head_object, **place) == 404
    proxied.put_object(**place, Body=BODY)
    assert get(proxied, place) == BODY
    assert [kind for kind, *_ in proxy.injected] == ["slow_down", "slow_down"]


def test_a_fault_keeps_to_its_method_and_key(proxy, proxied, place):
    proxy.add("reset", "PUT", key="another")
    proxy.add("reset", "DELETE", key=place["Key"])
    proxied.put_object(**place, Body=BODY)
    assert get(proxied, place) == BODY
    assert proxy.injected == []
    assert [method for method, _ in proxy.requests] == ["PUT", "GET"]


def test_a_reset_leaves_nothing(proxy, proxied, client, place):
    proxy.add("reset", "PUT", place["Key"])
    with pytest.raises(ConnectionClosedError):
        proxied.put_object(**place, Body=BODY)
    assert refusal(client.head_object, **place) == 404


def test_a_lost_reply_leaves_the_work_done(proxy, proxied, client, place):
    proxy.add("lost_reply", "PUT", place["Key"])
    with pytest.raises(ConnectionClosedError):
        proxied.put_object(**place, Body=BODY, IfNoneMatch="*")
    assert get(client, place) == BODY
    assert refusal(proxied.put_object, **place, Body=BODY, IfNoneMatch="*") == 412  # of our own making


def test_a_truncated_body(proxy, proxied, client, place):
    client.put_object(**place, Body=BODY)
    proxy.add("truncated", "GET")
    with pytest.raises(ResponseStreamingError):
        get(proxied, place)
    assert get(proxied, place) == BODY


def test_a_bit_flip(proxy, proxied, client, place):
    client.put_object(**place, Body=BODY)
    proxy.add("bit_flip", "GET")
    found = proxied.get_object(**place, Range="bytes=0-")["Body"].read()  # a range has no checksum of S3's
    assert len(found) == len(BODY)
    assert [a ^ b for a, b in zip(found, BODY, strict=True) if a != b] == [1]


def test_a_slow_reply(proxy, proxied, client, place):
    proxy.add("slow", "PUT", seconds=5)
    with pytest.raises(ReadTimeoutError):
        proxied.put_object(**place, Body=BODY)
    assert get(client, place) == BODY


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs Linux's setpriv")
def test_it_ends_with_who_started_it(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "tests.seaweed", "--folder", str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        next(process.stdout)
        process.kill()
    server = Seaweed(tmp_path)
    deadline = time.monotonic() + 20
    while listens(server) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not listens(server)
    server.kill()  # removes its sockets from /tmp


@pytest.mark.slow
def test_it_runs_in_the_foreground_until_ctrl_c(tmp_path):
    command = [sys.executable, "-m", "tests.seaweed", "--folder", str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        said = [next(process.stdout) for _ in range(4)]
        assert said[2:] == [
            f"  source {tmp_path}/data/env\n",
            "  conceptprune erase fox --store s3://conceptprune/demo\n",
        ]
        secret = Seaweed(tmp_path / "data").secret_key
        assert not any(secret in line for line in said)
        assert (tmp_path / "data" / "env").stat().st_mode & 0o777 == 0o600
        ask = "import botocore.session as b; print(b.Session().create_client('s3').list_buckets()['Buckets'])"
        script = f'. "{tmp_path}/data/env" && "{sys.executable}" -c "{ask}"'
        assert "'conceptprune'" in subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout
        process.send_signal(signal.SIGINT)
    assert process.returncode == 0
