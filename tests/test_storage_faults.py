"""What an object store does to its clients: lost replies, errors, damage on the way, others who write meanwhile."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from storage import activations, objects, urls, zarrs
from storage.activations import ActivationStore, captured_sets
from storage.edits import CorruptEdit, write_edit
from storage.names import sha256
from storage.places import SEAL, Place
from storage.pointers import move_pointer
from storage.roots import Root
from storage.zarrs import DamagedStore
from tests.activation_cases import PROMPTS, SITES, TOKENS, captured, energies, plan, planned
from tests.fault_proxy import FaultProxy
from tests.seaweed import Seaweed
from tests.storage_cases import content, drafts, kill, run

FIELDS: dict[str, Any] = {
    "edit": "0123456789abcdef", "model": {}, "profile": "p", "prune": {}, "prompt_sets": {}, "versions": {},
}  # fmt: skip


@pytest.fixture
def proxy(s3_root: str, s3_server: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """What stands between the clients and the server."""
    with FaultProxy(s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture
def place(s3_root: str) -> Place:
    return Root(s3_root).path("a", "file")


def sent(proxy: FaultProxy, method: str) -> int:
    return sum(m == method for m, _ in proxy.requests)


@pytest.mark.s3
def test_a_write_whose_reply_was_lost_counts_and_counts_once(proxy: FaultProxy, place: Place) -> None:
    proxy.add("lost_reply", method="PUT")
    assert place.put_new(b"one")
    assert sent(proxy, "PUT") == 2  # the second was refused, because of the first
    assert not place.put_new(b"other")
    proxy.add("lost_reply", method="PUT")
    assert place.compare_and_swap(b"two", sha256(b"one"))
    assert place.get() == b"two"
    proxy.add("lost_reply", method="PUT")
    assert (place.parent / "new").compare_and_swap(b"two", None)
    assert len(proxy.injected) == 3


@pytest.mark.s3
def test_a_pointer_whose_replies_are_lost_moves_once(proxy: FaultProxy, place: Place) -> None:
    for edit in ("a", "b"):
        proxy.add("lost_reply", method="PUT")
        move_pointer(place, edit, "m")
    assert json.loads(content(place)) == {"edit": "b", "manifest": "m", "previous": "a", "sequence": 2}
    assert len(proxy.injected) == 2


@pytest.mark.s3
def test_a_plan_whose_replies_are_lost_is_made(proxy: FaultProxy, s3_root: str) -> None:
    for key in ("prompt-set.zarr/zarr.json", "complete/c/1", f"{SITES[1].name}/energy/zarr.json"):
        proxy.add("lost_reply", method="PUT", key=key)
    assert captured(s3_root).pending() == []
    assert len(proxy.injected) == 3


@pytest.mark.s3
@pytest.mark.parametrize(
    ("fault", "methods"), [("slow_down", ["PUT", "GET"]), ("reset", ["PUT", "GET", "HEAD", "POST"])]
)
def test_passing_trouble_is_waited_for(proxy: FaultProxy, s3_root: str, fault: Any, methods: list[str]) -> None:
    place = Root(s3_root).path("a")
    for method in methods:
        proxy.add(fault, method=method)
    assert place.put_new(b"x")
    assert place.get() == b"x"
    assert place.exists()
    place.delete()
    assert not place.exists()
    for key in ("complete/c/0", f"{SITES[0].name}/energy/c/1"):
        proxy.add(fault, method="PUT", key=key)
        proxy.add(fault, method="GET", key=key)
    assert np.isfinite(captured(s3_root).energy(SITES[0].name)).all()
    assert len(proxy.injected) == len(methods) + 4


@pytest.mark.s3
@pytest.mark.parametrize(
    ("fault", "attempts", "message"),
    [("slow_down", 1, r"the server answered (SlowDown|503); run"), ("reset", 2, r"the server did not answer \(")],
    ids=["slow_down", "reset"],
)
def test_lasting_trouble_ends_in_one_sentence(
    proxy: FaultProxy, s3_root: str, fault: Any, attempts: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "ATTEMPTS", attempts)  # each of 4 would take a second more than the one before
    store = captured(s3_root)
    place = Root(s3_root).path("a")
    proxy.add(fault, times=10_000)
    work: list[Callable[[], object]] = [
        place.get,
        lambda: place.put_new(b"x"),
        place.files,
        store.pending,
        lambda: store.write(0, energies(), TOKENS),
    ]
    for do in work:
        before = len(proxy.requests)
        with pytest.raises(Exception) as caught:  # noqa: PT011  of either client
            do()
        sentence = urls.explain(caught.value) or ""
        assert re.fullmatch(f"{message}.*", sentence)
        assert len(proxy.requests) - before <= 8  # 2 attempts, of s3fs twice, and of zarr for several chunks at once
    with pytest.raises(ValueError, match="cannot be used: the server") as refused:
        Root(s3_root).check()
    assert "\n" not in str(refused.value)


@pytest.mark.s3
def test_a_reply_that_breaks_off_is_asked_for_again(proxy: FaultProxy, s3_root: str, place: Place) -> None:
    data = os.urandom(100_000)
    place.put(data)
    proxy.add("truncated", method="GET", key=place.url.rpartition("/")[2], times=2)
    assert place.get() == data
    proxy.add("truncated", method="GET", key="a/file")
    assert place.sha256() == (sha256(data), len(data))
    store = captured(s3_root)
    proxy.add("truncated", method="GET", key="energy/c/1", times=2)
    np.testing.assert_array_equal(store.energy(SITES[0].name)[1], energies(1)[SITES[0].name])
    assert len(proxy.injected) == 5


@pytest.mark.s3
def test_a_reply_that_always_breaks_off_is_an_error(proxy: FaultProxy, place: Place) -> None:
    place.put(b"x" * 1000)
    proxy.add("truncated", method="GET", times=1000)
    for read in (place.get, place.sha256):
        with pytest.raises(Exception) as caught:  # noqa: PT011  of the HTTP client
            read()
        assert (urls.explain(caught.value) or "").startswith("the server did not answer")


@pytest.mark.s3
def test_a_bit_that_flips_on_the_way_is_noticed(proxy: FaultProxy, s3_root: str) -> None:
    store = captured(s3_root)
    for name in (SITES[0].name, "complete", "text"):
        proxy.add("bit_flip", method="GET", key=f"{name}/c/0" if name != SITES[0].name else f"{name}/energy/c/0")
        with pytest.raises(DamagedStore, match="is damaged"):
            store.energy(SITES[0].name).sum().compute()
    store.energy(SITES[0].name).sum().compute()  # nothing is wrong with what is stored
    edit = write_edit(s3_root, "demo", "fox", {"report.json": b"{}" * 100}, FIELDS)
    proxy.add("bit_flip", method="GET", key="report.json")
    with pytest.raises(CorruptEdit, match="wrong sha256"):
        edit.verify()
    proxy.add("bit_flip", method="GET", key="report.json")
    assert edit.read("report.json") == b"{}" * 100  # the client's own checksum fails first, and it asks again
    edit.verify()
    assert len(proxy.injected) == 5


@pytest.mark.parametrize("step", ["coordinates", "marks", "sites"])
def test_a_planner_that_lags_behind_a_worker_resets_nothing(
    root: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It began when there was no store; at this step of its plan another has planned, and workers are done."""
    left = [0]

    def lagging(then: Callable[..., Any], when: Callable[..., bool]) -> Callable[..., Any]:
        def do(*arguments: Any, **options: Any) -> Any:
            if not left and when(*arguments):
                left.append(0)
                captured(root)
            return then(*arguments, **options)

        return do

    if step == "marks":
        monkeypatch.setattr(zarrs, "add_array", lagging(zarrs.add_array, lambda group, name, *_: name == "complete"))
    else:
        name = {"coordinates": "add_coordinates", "sites": "add_site"}[step]
        monkeypatch.setattr(activations, name, lagging(getattr(activations, name), lambda *_: True))
    left.clear()
    store = planned(root)
    assert left, "another planned meanwhile"
    assert store.pending() == []
    np.testing.assert_array_equal(store.energy(SITES[1].name)[2], energies(2)[SITES[1].name])
    assert drafts(root) == []


HALF = """
zarr.Group.create_group = die  # the first site's
plan(ActivationStore({root!r}, "profile", "half"))
"""
UNSEALED = """
os.rename = objects.ObjectPlace.put_new = die
plan(ActivationStore({root!r}, "profile", "unsealed"))
"""


def test_planning_that_was_cut_off_is_no_store_and_is_finished_by_the_next(root: str) -> None:
    setup = "import zarr\nfrom storage import objects\nfrom tests.activation_cases import *"
    kill(setup, HALF.format(root=root), UNSEALED.format(root=root))
    assert not any(ActivationStore(root, "profile", name).exists() for name in captured_sets(root, "profile"))
    for name in ("half", "unsealed"):
        store = ActivationStore(root, "profile", name)
        assert not store.exists()
        with pytest.raises(ValueError, match="there is no store at"):
            store.attributes()
        plan(store)
        assert store.pending() == [0, 1, 2]
        store.write(1, energies(1), TOKENS)
        assert store.prompts() == [(prompt.text, prompt.seed) for prompt in PROMPTS]
    assert captured_sets(root, "profile") == ["half", "unsealed"]


@pytest.mark.s3
def test_planning_never_mixes_with_what_another_plan_left(s3_root: str) -> None:
    store = planned(s3_root)
    (store.path / SEAL).delete()
    with pytest.raises(DamagedStore, match="what an interrupted deletion left; delete it"):
        plan(store, prompts=[PROMPTS[1], PROMPTS[0], PROMPTS[2]])
    plan(store)
    assert store.pending() == [0, 1, 2]


@pytest.mark.s3
def test_what_others_write_is_seen_at_once(s3_root: str, s3_server: Seaweed) -> None:
    client, bucket = s3_server.client(), s3_server.bucket
    base = Root(s3_root).path("base")
    key = urls.split(base.url)[1]
    for look in range(3):
        assert base.folders() == [f"d{i}" for i in range(look)]
        assert len(base.files()) == look
        assert not (base / f"d{look}" / "x").exists()
        assert (base / f"d{look}" / "x").get() is None
        client.put_object(Bucket=bucket, Key=f"{key}/d{look}/x", Body=b"new")
        assert (base / f"d{look}" / "x").exists()
        assert (base / f"d{look}" / "x").get() == b"new"
    client.put_object(Bucket=bucket, Key=f"{key}/d0/x", Body=b"newer")
    assert (base / "d0" / "x").get() == b"newer"
    assert base.files()["d0/x"] == 5
    client.delete_object(Bucket=bucket, Key=f"{key}/d0/x")
    assert not (base / "d0" / "x").exists()
    assert set(base.files()) == {"d1/x", "d2/x"}
    store = planned(s3_root)
    assert not zarr.open_group(store.path.store(), mode="r", use_consolidated=False).attrs.get("new")
    zarr.open_group(store.path.store(True), mode="r+", use_consolidated=False).attrs["new"] = 1
    assert zarr.open_group(store.path.store(), mode="r", use_consolidated=False).attrs["new"] == 1


FORKED = """
import os, sys
from tests.activation_cases import *
store = planned({root!r})  # the object store is used before the fork
if os.fork() == 0:
    try:
        ActivationStore({root!r}, "profile", "child").attributes() if {new} else store.pending()
    except RuntimeError as error:
        print(error, flush=True)
        os._exit(0)
    os._exit(1)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.s3
@pytest.mark.parametrize("new", [True, False], ids=["a new store", "the parent's"])
def test_a_fork_of_a_process_that_used_the_object_store_is_told_so(s3_root: str, new: bool) -> None:
    done = run(FORKED.format(root=s3_root, new=new))
    assert done.returncode == 0, done.stderr
    assert "in a fork of a process that had used the object store before; start worker processes with" in done.stdout


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """20 MB, which go up in 3 parts."""
    (tmp_path / "large").write_bytes(os.urandom(1 << 20) * 20)
    return tmp_path / "large"


@pytest.mark.s3
def test_a_large_file_goes_up_in_parts_and_the_first_one_stays(proxy: FaultProxy, place: Place, large: Path) -> None:
    assert place.put_new(large)
    assert sum("partNumber" in path for _, path in proxy.requests) == 3
    assert place.parent.files() == {"file": large.stat().st_size}
    assert place.put_new(large)  # a retry
    other = large.with_name("other")
    other.write_bytes(large.read_bytes()[:-1] + b"?")
    assert not place.put_new(other)
    assert place.sha256() == (sha256(large.read_bytes()), large.stat().st_size)
    assert drafts(place.parent.url) == []  # what was refused is not kept either


@pytest.mark.s3
@pytest.mark.parametrize("fault", ["lost_reply", "slow_down"])
def test_trouble_at_the_end_of_a_large_file_is_waited_for(
    proxy: FaultProxy, place: Place, tmp_path: Path, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PIECE", 5 << 20)  # S3 wants no less
    (large := tmp_path / "large").write_bytes(b"x" * (11 << 20))
    proxy.add(fault, method="PUT", key="partNumber=2")
    proxy.add(fault, method="POST", key="uploadId=")
    assert place.put_new(large)
    assert place.sha256() == (sha256(large.read_bytes()), large.stat().st_size)
    assert drafts(place.parent.url) == []
    assert len(proxy.injected) == 2


@pytest.mark.s3
@pytest.mark.slow  # 6 s
def test_a_large_file_is_never_in_memory(s3_root: str, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        for _ in range(200):
            file.write(os.urandom(1 << 20))
    done = run(
        "import resource\n"
        "from pathlib import Path\n"
        "from storage.roots import Root\n"
        f"place = Root({s3_root!r}).path('a')\n"
        "place.put_new(b'to load the client'); place.sha256(); place.delete()\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10\n"
        "before = peak()\n"
        f"assert place.put_new(Path({str(tmp_path / 'large')!r}))\n"
        "sent = peak()\n"
        "assert place.sha256()[1] == 200 << 20\n"
        "print(sent - before, peak() - before)\n"
    )
    assert done.returncode == 0, done.stderr
    assert all(int(more) < 150 for more in done.stdout.split()), done.stdout  # MB
