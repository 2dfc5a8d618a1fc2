"""The stores in another implementation of Zarr, tensorstore (C++): no code of ours or of zarr-python reads here.

tensorstore knows no strings in Zarr v3 (0.1.86), so the labels prompt, text and branch are left to readers that do.
"""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import pytest
import tensorstore

from storage.models import ModelStore
from storage.places import Place
from storage.rankings import RankingStore
from storage.roots import Root
from storage.urls import is_object, split
from tests import tier_cases
from tests.activation_cases import PROFILE, SITES, TIMESTEPS, captured, chunk, energies, planned
from tests.storage_cases import content, delete, flip


def kvstore(place: Place) -> dict[str, Any]:
    """Where a folder is, in tensorstore's words; keys come from the environment, as everyone's do."""
    if not is_object(place.url):
        return {"driver": "file", "path": f"{place.url}/"}
    bucket, key = split(place.url)
    return {"driver": "s3", "bucket": bucket, "path": f"{key}/", "endpoint": os.environ["AWS_ENDPOINT_URL"],
            "aws_region": os.environ["AWS_DEFAULT_REGION"]}  # fmt: skip


def opened(place: Place) -> tensorstore.TensorStore:
    return tensorstore.open({"driver": "zarr3", "kvstore": kvstore(place)}).result()


def read(place: Place) -> np.ndarray:
    return np.asarray(opened(place).read().result())


def attributes(place: Place) -> dict[str, Any]:
    """The attributes of a group: plain JSON."""
    return dict(json.loads(content(place / "zarr.json"))["attributes"])


def same_bits(one: np.ndarray, other: np.ndarray) -> None:
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    assert one.tobytes() == other.tobytes()


def test_energies(root: str) -> None:
    path = captured(root).path
    assert attributes(path)["profile"] == PROFILE
    assert attributes(path)["sites"] == [site.name for site in SITES]
    for site in SITES:
        found = opened(path / site.name / "energy")
        assert found.domain.labels == ("prompt", "step", "branch", "neuron")
        assert found.chunk_layout.read_chunk.shape == (1, 3, 2, site.width)
        same_bits(read(path / site.name / "energy"), np.stack([energies(slot)[site.name] for slot in range(3)]))
        one = found[tensorstore.d["prompt", "branch"][1, 0]].read().result()
        same_bits(np.asarray(one), energies(1)[site.name][:, 0])
    same_bits(read(path / "timestep"), np.array(TIMESTEPS, "f8"))
    same_bits(read(path / "step"), np.arange(3, dtype="i4"))
    same_bits(read(path / "seed"), np.array([0, 1, 2**63 - 1]))
    same_bits(read(path / "complete"), np.ones(3, "u1"))


def test_pending_prompts_are_nan_and_damage_is_seen(root: str) -> None:
    assert np.isnan(read(planned(root).path / SITES[0].name / "energy")).all()
    store = captured(root)
    flip(chunk(store, 1))
    with pytest.raises(ValueError, match="Digest mismatch"):
        read(store.path / SITES[0].name / "energy")


def test_rankings(root: str) -> None:
    random = np.random.default_rng(0)
    neuron = random.integers(0, 7, (3, 4, 5)).astype("u2")
    kept = random.random((3, 4, 5)) < 0.5
    store = RankingStore(root, "profile", "reference", "target", model="m", branch="both")
    store.write(SITES[0].name, neuron, kept)
    folder = store.path / SITES[0].name / "5"
    assert opened(folder / "neuron").domain.labels == ("step", "row", "rank")
    same_bits(read(folder / "neuron"), neuron)
    np.testing.assert_array_equal(np.unpackbits(read(folder / "kept"), axis=-1, count=5).astype(bool), kept)


@pytest.mark.parametrize("kind", ["pooled", "raw"])
def test_tiers(root: str, kind: Any) -> None:
    path = tier_cases.observed(root, kind).path
    assert attributes(path / SITES[0].name)["grid"] == [2, 3]
    for site in SITES:
        for name in tier_cases.values(kind)[site.name]:
            expected = np.stack([tier_cases.values(kind, slot)[site.name][name] for slot in range(3)])
            same_bits(read(path / site.name / name), expected)
    same_bits(read(path / "step"), np.array(tier_cases.STEPS, "i4"))


@pytest.mark.parametrize("dtype", ["f4", "f2", "u2"])
def test_weights(root: str, dtype: str) -> None:
    store = ModelStore(root, "model")
    weights = {
        site.name: np.random.default_rng(0).normal(0, 99, (site.rows, site.width)).astype(dtype) for site in SITES
    }
    store.write(weights, SITES, {})
    for site in SITES:
        same_bits(read(store.path / site.name / "weight"), weights[site.name])


def test_a_missing_chunk_is_nan_for_others(root: str) -> None:
    """Why `complete` and DamagedStore are there: Zarr itself takes what is gone for what was never written."""
    store = captured(root)
    delete(chunk(store, 1))
    found = read(store.path / SITES[0].name / "energy")
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[[0, 2]]).all()
    assert Root(root).url in store.url
