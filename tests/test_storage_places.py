"""Places: files and trees that are whole or absent, on a disk and in an object store."""

from __future__ import annotations

import hashlib
import os
import pickle  # noqa: TID251  what crosses processes must be picklable; nothing from a store is unpickled
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import zarr
from zarr.abc.store import Store

from storage.names import sha256
from storage.places import SEAL, Place
from storage.roots import Root, place_at
from tests.storage_cases import REPOSITORY, content, drafts, run


@pytest.fixture
def place(root: str) -> Place:
    return Root(root).path("a", "file")


def test_put_replaces_and_put_new_does_not(root: str, place: Place) -> None:
    assert place.get() is None
    assert place.sha256() is None
    assert not place.exists()
    assert place.put_new(b"one")
    assert place.put_new(b"one")  # a retry whose first reply was lost
    assert not place.put_new(b"two")
    assert place.get() == b"one"
    place.put(b"two")
    assert place.exists()
    assert place.get() == b"two"
    assert place.sha256() == (sha256(b"two"), 3)
    assert place.parent.files() == {"file": 3}
    assert drafts(root) == []


def test_when_a_file_was_written_can_be_told(place: Place) -> None:
    assert place.modified() is None
    place.put(b"x")
    written = place.modified()
    assert written is not None
    assert abs(datetime.now(UTC) - written) < timedelta(seconds=60)


def test_an_empty_file_is_a_file(place: Place) -> None:
    assert place.put_new(b"")
    assert (place.exists(), place.get(), place.sha256()) == (True, b"", (sha256(b""), 0))
    assert place.parent.files() == {"file": 0}
    assert not place.put_new(b"x")


def test_a_local_file_may_be_put(place: Place, tmp_path: Path) -> None:
    (one := tmp_path / "one").write_bytes(b"one" * 100_000)
    (two := tmp_path / "two").write_bytes(b"two")
    assert place.put_new(one)
    assert place.put_new(one)
    assert not place.put_new(two)
    assert place.get() == one.read_bytes()
    assert place.sha256() == (hashlib.sha256(one.read_bytes()).hexdigest(), 300_000)


def test_of_many_writers_put_new_keeps_one(place: Place) -> None:
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda i: place.put_new(b"%d" % i), range(32)))
    assert sum(won) == 1
    assert place.get() == b"%d" % won.index(True)


def test_compare_and_swap_loses_no_update(place: Place) -> None:
    def add_one(i: int) -> None:
        while True:
            old = place.get()
            if place.compare_and_swap((old or b"") + b"%d," % i, None if old is None else sha256(old)):
                return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add_one, range(12)))
    assert sorted(map(int, content(place).split(b",")[:-1])) == list(range(12))


def test_compare_and_swap_refuses_what_it_did_not_expect(place: Place) -> None:
    assert not place.compare_and_swap(b"new", sha256(b"old"))
    assert place.get() is None
    assert place.compare_and_swap(b"old", None)
    assert not place.compare_and_swap(b"new", None)
    assert place.compare_and_swap(b"old", None)  # it holds these bytes already
    assert place.compare_and_swap(b"new", sha256(b"old"))
    assert place.get() == b"new"


def test_folders_and_files_are_what_was_written(root: str) -> None:
    base = Root(root).path("base")
    assert (base.folders(), base.files()) == ([], {})
    for name in ("b/2", "b/c/3", "a é/1", "4", "b.5"):
        (base / name).put(name.encode())
    assert base.folders() == ["a é", "b"]
    assert base.files() == {"4": 1, "a é/1": 6, "b.5": 3, "b/2": 3, "b/c/3": 5}
    assert (base / "b").files() == {"2": 3, "c/3": 5}
    assert ((base / "4").folders(), (base / "4").files()) == ([], {})
    assert Root(root).path("bas").files() == {}
    assert not base.exists()  # a folder is no file
    assert (base.name, base.parent.url) == ("base", Root(root).url)


def test_deleting_takes_a_file_or_a_folder_and_nothing_beside_it(root: str) -> None:
    base = Root(f"{root}/a[b]*").path("base")
    beside = Root(f"{root}/abc").path("base")
    beside.put(b"")
    names = ["b", "b.c", "d/1", "d/e/2", "d.e/3", "dd/4"]
    for name in names:
        (base / name).put(b"")
    (base / "b").delete()
    assert set(base.files()) == set(names) - {"b"}
    (base / "d").delete()
    (base / "d").delete()
    (base / "nothing").delete()
    assert set(base.files()) == {"b.c", "d.e/3", "dd/4"}
    base.delete()
    assert base.files() == {}  # some servers still list the folders
    assert beside.exists()


def fill(store: Store) -> None:
    group = zarr.create_group(store, zarr_format=3, attributes={"who": "we"})
    group.create_array("x", shape=(4,), chunks=(2,), dtype="i4")[...] = [1, 2, 3, 4]


def test_a_tree_is_there_once_its_seal_is(root: str, place: Place) -> None:
    assert place.put_new_tree(fill)
    files = place.files()
    assert {"zarr.json", "x/zarr.json", "x/c/0", "x/c/1"} == set(files)
    assert zarr.open_group(place.store(), mode="r", use_consolidated=False)["x"][...].tolist() == [1, 2, 3, 4]
    assert not place.put_new_tree(lambda store: pytest.fail("it is there already"))
    assert place.files() == files
    assert drafts(root) == []


def test_a_tree_that_fails_half_way_is_not_there_and_can_be_made_again(root: str, place: Place) -> None:
    def half(store: Store) -> None:
        fill(store)
        raise RuntimeError("stopped half way")

    with pytest.raises(RuntimeError, match="half way"):
        place.put_new_tree(half)
    assert not (place / SEAL).exists()
    assert drafts(root) == []
    assert place.put_new_tree(fill)


def test_a_tree_inside_a_tree_is_built_outside(root: str, place: Place) -> None:
    assert place.put_new_tree(fill)
    assert (place / "inner").put_new_tree(fill, drafts=place.parent)
    assert not (place / "inner").put_new_tree(fill, drafts=place.parent)
    assert zarr.open_group(place.store(), mode="r", use_consolidated=False)["inner/x"].shape == (4,)
    assert drafts(root) == []


def test_a_store_for_reading_cannot_be_written(place: Place) -> None:
    place.put_new_tree(fill)
    group = zarr.open_group(place.store(), mode="r", use_consolidated=False)
    with pytest.raises(ValueError, match="read-only"):
        group.attrs["who"] = "others"
    zarr.open_group(place.store(writable=True), use_consolidated=False).attrs["who"] = "others"
    assert zarr.open_group(place.store(), mode="r", use_consolidated=False).attrs["who"] == "others"


def test_a_tree_can_be_listed_and_pruned(place: Place) -> None:
    place.put_new_tree(fill)
    group = zarr.open_group(place.store(writable=True), mode="r+", use_consolidated=False)
    group.create_group("inner")
    assert (sorted(group.array_keys()), sorted(group.group_keys())) == (["x"], ["inner"])
    del group["x"]
    assert set(place.files()) == {"zarr.json", "inner/zarr.json"}


@pytest.mark.s3
def test_a_place_works_in_another_process(s3_root: str) -> None:
    """Spawned, as dask and Prefect start theirs: what a client holds is not inherited."""
    place = Root(s3_root).path("a", "file")
    place.put(b"from the parent")
    assert pickle.loads(pickle.dumps(place)) == place
    done = run(
        "import multiprocessing\n"
        "from storage.roots import Root\n"
        "if __name__ == '__main__':\n"
        f"    place = Root({s3_root!r}).path('a', 'file')\n"
        "    assert place.get() == b'from the parent'\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        assert pool.apply(place.get) == b'from the parent'\n"
        "        pool.apply(place.put, (b'from the child',))\n"
    )
    assert done.returncode == 0, done.stderr
    assert place.get() == b"from the child"  # at once: nothing about it is remembered


def test_one_directory_has_one_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    roots = [tmp_path, f"{tmp_path}/", f"{tmp_path}/a/..", tmp_path.as_uri(), f"file://localhost{tmp_path}", "."]
    assert {Root(root) for root in roots} == {Root(str(tmp_path))}
    assert Root(Root(tmp_path)) == pickle.loads(pickle.dumps(Root(tmp_path)))
    assert place_at(tmp_path / "x").url == Root(tmp_path).path("x").url == os.fspath(tmp_path / "x")


def test_a_root_that_is_a_file_or_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="is a file; give a directory"):
        Root(tmp_path / "file")
    with pytest.raises(ValueError, match="cannot be written: .*/file is not a directory that you may write to"):
        Root(tmp_path / "file" / "store").check()
    Root(tmp_path / "new" / "store").check()
    assert not (tmp_path / "new").exists()


def test_half_written_trees_on_a_disk_are_no_files(tmp_path: Path) -> None:
    folder = Root(tmp_path).path("a")
    (folder / "b" / SEAL).put(b"{}")
    (tmp_path / "a" / ".c.0.tmp" / "x").mkdir(parents=True)
    (tmp_path / "a" / ".c.0.tmp" / SEAL).write_bytes(b"{}")
    assert folder.files() == {"b/zarr.json": 2}
    assert folder.folders() == ["b"]


def test_a_path_below_a_file_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    place = Root(tmp_path).path("file", "x")
    assert (place.get(), place.sha256(), place.exists(), place.files(), place.folders()) == (None, None, False, {}, [])
    place.delete()


def test_importing_storage_needs_neither_torch_nor_prefect_nor_a_client() -> None:
    modules = sorted(f"storage.{path.stem}" for path in (REPOSITORY / "storage").glob("[a-z]*.py"))
    clients = "'s3fs', 'obstore', 'botocore', 'aiobotocore', 'aiohttp'"  # slow to import, and only for s3://
    code = (
        f"import sys, {', '.join(modules)}\n"
        "odd = {m.split('.')[0] for m in sys.modules} & {'torch', 'prefect', 'flows', 'safetensors', 'distributed'}\n"
        f"odd |= {{m.split('.')[0] for m in sys.modules}} & {{{clients}}}\n"
        "odd |= {m for m in sys.modules if m.startswith('tasks.') and 'concepts' not in m and 'diffusion' not in m}\n"
        "sys.exit(', '.join(odd) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
