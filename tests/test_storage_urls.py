"""Roots, names, digests and atomic writes of storage.urls."""

from __future__ import annotations

import os
import pickle  # noqa: TID251  what crosses processes must be picklable; nothing from a store is unpickled
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.urls import (
    Root,
    canonical_json,
    compare_and_swap,
    digest,
    escape,
    get,
    put,
    put_new,
    put_new_tree,
    sha256,
)

REPOSITORY = Path(__file__).parents[1]
ANY_NAME = st.text(min_size=1, max_size=12)  # never longer than 200 bytes once escaped


def test_one_directory_has_one_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    roots = [tmp_path, f"{tmp_path}/", f"{tmp_path}/a/..", tmp_path.as_uri(), f"file://localhost{tmp_path}", "."]
    assert {Root(root) for root in roots} == {Root(str(tmp_path))}
    assert Root(Root(tmp_path)) == pickle.loads(pickle.dumps(Root(tmp_path)))


@pytest.mark.parametrize("url", ["s3://bucket/store", "gs://b", "http://x/y", "file://host/x"])
def test_other_roots_are_refused_in_one_sentence(url: str) -> None:
    with pytest.raises(ValueError, match=r"only local directories work so far; give a path$"):
        Root(url)


@pytest.mark.parametrize("url", ["", "  "])
def test_an_empty_root_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        Root(url)


@given(st.lists(ANY_NAME | st.sampled_from(["..", ".", "../..", "/etc", "a/b", "~", "é", "\0", "%2E"]), min_size=1))
def test_names_never_leave_the_root(names: list[str]) -> None:
    path = Root("/root/of/all").path(*names, suffix=".zarr")
    assert os.path.normpath(path) == str(path)
    assert path.parts[: -len(names)] == ("/", "root", "of", "all")
    assert all(re.fullmatch(r"[\w~%-][\w.~%-]*", part, re.ASCII) for part in path.parts[-len(names) :])


@given(ANY_NAME, ANY_NAME)
def test_different_names_have_different_paths(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) == (one == other)


@pytest.mark.parametrize("name", ["", "x" * 201, "é" * 40, "\ud800"])
def test_names_that_cannot_be_paths_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="rename it"):
        escape(name)


def test_digests_ignore_order_and_nothing_else() -> None:
    assert canonical_json({"b": ["é"], "a": 1}) == b'{"a":1,"b":["\\u00e9"]}'
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})
    assert len(digest([])) == 16
    with pytest.raises(ValueError, match="JSON"):
        digest(float("nan"))


def test_put_replaces_and_put_new_does_not(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file"
    assert get(path) is None
    assert put_new(path, b"one")
    assert put_new(path, b"one")  # a retry whose first reply was lost
    assert not put_new(path, b"two")
    assert get(path) == b"one"
    put(path, b"two")
    assert get(path) == b"two"
    assert os.listdir(path.parent) == ["file"]  # no drafts stay


def test_of_many_writers_put_new_keeps_one(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda i: put_new(tmp_path / "file", b"%d" % i), range(64)))
    assert sum(won) == 1
    assert get(tmp_path / "file") == b"%d" % won.index(True)


def test_compare_and_swap_loses_no_update(tmp_path: Path) -> None:
    path = tmp_path / "counter"

    def add_one(i: int) -> None:
        while True:
            old = get(path)
            if compare_and_swap(path, (old or b"") + b"%d," % i, None if old is None else sha256(old)):
                return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add_one, range(100)))
    assert sorted(map(int, (get(path) or b"").split(b",")[:-1])) == list(range(100))


def test_compare_and_swap_refuses_what_it_did_not_expect(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert not compare_and_swap(path, b"new", sha256(b"old"))
    assert get(path) is None
    assert compare_and_swap(path, b"old", None)
    assert not compare_and_swap(path, b"new", None)
    assert compare_and_swap(path, b"old", None)  # it holds these bytes already
    assert compare_and_swap(path, b"new", sha256(b"old"))


def test_a_tree_is_whole_or_absent(tmp_path: Path) -> None:
    def half(draft: Path) -> None:
        draft.mkdir()
        (draft / "one").write_bytes(b"1")
        raise RuntimeError("stopped half way")

    with pytest.raises(RuntimeError, match="half way"):
        put_new_tree(tmp_path / "tree", half)
    assert os.listdir(tmp_path) == []


def test_importing_storage_needs_neither_torch_nor_prefect() -> None:
    modules = sorted(f"storage.{path.stem}" for path in (REPOSITORY / "storage").glob("[a-z]*.py"))
    code = (
        f"import sys, {', '.join(modules)}\n"
        "odd = {m.split('.')[0] for m in sys.modules} & {'torch', 'prefect', 'flows', 'safetensors', 'distributed'}\n"
        "odd |= {m for m in sys.modules if m.startswith('tasks.') and 'concepts' not in m and 'diffusion' not in m}\n"
        "sys.exit(', '.join(odd) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
