"""Names, digests and canonical JSON: what addresses are made of."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.names import canonical_json, digest, escape
from storage.roots import Root

ANY_NAME = st.text(min_size=1, max_size=12)  # never longer than 200 bytes once escaped
ODD_NAMES = st.sampled_from(["..", ".", "../..", "/etc", "a/b", "~", "é", "\0", "%2E", "?x", "#x", "a\\b"])


@pytest.mark.parametrize("root", ["/root/of/all", "s3://bucket/of/all", "s3://bucket"])
@given(names=st.lists(ANY_NAME | ODD_NAMES, min_size=1))
def test_names_never_leave_the_root(root: str, names: list[str]) -> None:
    path = Root(root).path(*names, suffix=".zarr")
    assert path.url.startswith(f"{root}/")
    segments = path.url.removeprefix(f"{root}/").split("/")
    assert len(segments) == len(names)
    assert all(re.fullmatch(r"[\w~%-][\w.~%-]*", segment, re.ASCII) for segment in segments)


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
