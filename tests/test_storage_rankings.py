"""The cache of rankings."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray as xr

from storage import rankings
from storage.places import Place
from storage.rankings import RankingStore
from storage.roots import Root
from storage.zarrs import DamagedStore
from tests.storage_cases import delete, drafts, flip

SITE, OTHER = "unet.a.ff.net.2", "unet.b.ff.net.2"


def open_store(root: str, **changes: str) -> RankingStore:
    key = {"profile": "p", "reference": "r", "target": "t", "model": "m", "branch": "both"}
    return RankingStore(root, **{**key, **changes})


def ranking(depth: int, steps: int = 5) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(depth)
    shape = (steps, 4, depth)
    return random.integers(0, 65535, shape, "u2"), random.random(shape) < 0.5


@pytest.mark.parametrize("chunk_bytes", [1, 200, 8_000_000])
def test_a_ranking_comes_back(root: str, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int) -> None:
    monkeypatch.setattr(rankings, "CHUNK_BYTES", chunk_bytes)
    store = open_store(root)
    assert store.depths() == {}
    assert not store.exists({SITE: 1})
    store.write_all({SITE: ranking(11), OTHER: ranking(3)}, {"note": "x"})
    assert store.depths() == {SITE: 11, OTHER: 3}
    assert store.exists({SITE: 10, OTHER: 3})
    assert not store.exists({SITE: 11, OTHER: 4})
    for site, depth in store.depths().items():
        for got, expected in zip(store.read(site), ranking(depth), strict=True):
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected)
    assert store.attributes() | {"profile": "p", "branch": "both", "note": "x"} == store.attributes()
    assert xr.open_datatree(store.url, engine="zarr", consolidated=False)[f"{SITE}/11"]["neuron"].dims[2] == "rank"


def test_a_deeper_ranking_goes_beside_a_shallower_one(root: str) -> None:
    store = open_store(root)
    for depth in (4, 9, 4):
        store.write(SITE, *ranking(depth))
    assert store.depths() == {SITE: 9}
    np.testing.assert_array_equal(store.read(SITE)[0], ranking(9)[0])


@pytest.mark.parametrize("part", ["profile", "reference", "target", "model", "branch"])
def test_fault_4_what_changes_a_ranking_changes_its_address(root: str, part: str) -> None:
    open_store(root).write(SITE, *ranking(4))
    assert not open_store(root, **{part: "other"}).exists({SITE: 1})


def test_writers_that_race_leave_one_whole_ranking(root: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: open_store(root).write([SITE, OTHER][i % 2], *ranking(4 + i // 4)), range(8)))
    store = open_store(root)
    assert store.depths() == {SITE: 5, OTHER: 5}
    np.testing.assert_array_equal(store.read(OTHER)[1], ranking(5)[1])
    assert store.path.parent.folders() == [store.path.name]
    assert drafts(root) == []


def test_it_may_be_deleted(root: str) -> None:
    store = open_store(root)
    store.write(SITE, *ranking(4))
    Root(root).path("rankings").delete()
    assert store.depths() == {}
    with pytest.raises(ValueError, match=f"holds no ranking of {SITE}; rank the concept first"):
        store.read(SITE)
    store.write(SITE, *ranking(4))
    assert store.exists({SITE: 4})


@pytest.mark.parametrize("name", ["neuron", "kept"])
@pytest.mark.parametrize("damage", [flip, delete])
def test_a_damaged_ranking_raises(root: str, name: str, damage: Callable[[Place], None]) -> None:
    store = open_store(root)
    store.write(SITE, np.zeros((2, 3, 4), "u2"), np.zeros((2, 3, 4), bool))
    store.read(SITE)  # zeros are data, not missing chunks
    damage(store.path / SITE / "4" / name / "c" / "0" / "0" / "0")
    with pytest.raises(DamagedStore, match=f"the ranking of {SITE} is damaged .* delete it"):
        store.read(SITE)


def test_what_is_no_ranking_is_refused(root: str) -> None:
    neuron, kept = ranking(4)
    for wrong in ((neuron, kept[:1]), (neuron.astype("i8"), kept), (neuron, kept.astype("u1")), (neuron[0], kept[0])):
        with pytest.raises(ValueError, match="expected uint16 and bool, both"):
            open_store(root).write(SITE, *wrong)
    with pytest.raises(ValueError, match="cannot name a group"):
        open_store(root).write("../../../up", neuron, kept)
    assert Root(root).path("rankings").files() == {}
