"""The store of a model's weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from storage.models import ModelStore
from storage.places import Place
from storage.zarrs import DamagedStore
from tasks.diffusion.spec import NeuronSite
from tests.storage_cases import delete, flip

SITES = [NeuronSite("unet.b.ff.net.2", "ffn", 6, 4), NeuronSite("unet.a.attn2.to_v", "attn_v", 3, 5)]
WEIGHTS = {
    site.name: np.random.default_rng(site.width).normal(size=(site.rows, site.width)).astype("f4") for site in SITES
}


def test_weights_come_back_exactly(root: str) -> None:
    store = ModelStore(root, "owner/model")
    assert not store.exists()
    store.write(WEIGHTS, SITES, {"fingerprint": "f"})
    store.write(WEIGHTS, SITES, {"fingerprint": "f"})  # again does nothing
    assert store.exists()
    assert store.sites() == SITES
    assert store.attributes() == {"fingerprint": "f"}
    for site in SITES:
        np.testing.assert_array_equal(store.weight(site.name), WEIGHTS[site.name])
        assert store.dtype(site.name) == "float32"
    tree = xr.open_datatree(store.url, engine="zarr", consolidated=False, chunks={})
    assert tree[SITES[0].name]["weight"].dims == ("row", "neuron")


def test_16_bit_weights_are_kept_as_they_are_and_widened_exactly(root: str) -> None:
    bits = (np.array([[1.0, -2.5], [3.0e38, 1e-40]], "f4").view("u4") >> 16).astype("u2")
    store = ModelStore(root, "m")
    half = np.array([[0.1, 65504]], "f2")
    store.write(
        {"unet.x": bits, "unet.y": half}, [NeuronSite("unet.x", "f", 2, 2), NeuronSite("unet.y", "f", 2, 1)], {}
    )
    assert [store.dtype(site) for site in ("unet.x", "unet.y")] == ["bfloat16", "float16"]
    assert store.weight("unet.x").dtype == store.weight("unet.y").dtype == np.float32
    np.testing.assert_array_equal(store.weight("unet.x").view("u4"), bits.astype("u4") << 16)
    np.testing.assert_array_equal(store.weight("unet.y"), half)
    assert store.weight("unet.x")[0].tolist() == [1.0, -2.5]


def test_fault_10_another_model_at_the_same_address_is_refused(root: str) -> None:
    store = ModelStore(root, "m")
    store.write(WEIGHTS, SITES, {"fingerprint": "f"})
    other = {**WEIGHTS, SITES[0].name: WEIGHTS[SITES[0].name] + np.float32(1e-3)}
    for weights, sites, attributes in (
        (other, SITES, {"fingerprint": "f"}),
        (WEIGHTS, SITES, {"fingerprint": "g"}),
        (WEIGHTS, SITES[::-1], {"fingerprint": "f"}),
    ):
        with pytest.raises(ValueError, match="holds another model"):
            store.write(weights, sites, attributes)


@pytest.mark.parametrize("damage", [flip, delete])
def test_a_damaged_weight_raises(root: str, damage: Callable[[Place], None]) -> None:
    store = ModelStore(root, "m")
    store.write({site.name: np.zeros((site.rows, site.width), "f4") for site in SITES}, SITES, {})
    assert not store.weight(SITES[0].name).any()  # zeros are data, not a missing chunk
    damage(store.path / SITES[0].name / "weight" / "c" / "0" / "0")
    with pytest.raises(DamagedStore, match=f"the weight of {SITES[0].name} is damaged .* delete the store"):
        store.weight(SITES[0].name)


def test_what_does_not_fit_is_refused(root: str) -> None:
    store = ModelStore(root, "m")
    with pytest.raises(ValueError, match=r"of shape \(6, 4\); expected .out, in. = \(4, 6\)"):
        store.write({**WEIGHTS, SITES[0].name: WEIGHTS[SITES[0].name].T}, SITES, {})
    with pytest.raises(ValueError, match="to_v is missing"):
        store.write({SITES[0].name: WEIGHTS[SITES[0].name]}, SITES, {})
    with pytest.raises(ValueError, match="2 weights for 1 sites"):
        store.write(WEIGHTS, SITES[:1], {})
    with pytest.raises(ValueError, match="is float64; expected float32, float16, or uint16"):
        store.write({name: weight.astype("f8") for name, weight in WEIGHTS.items()}, SITES, {})
    with pytest.raises(ValueError, match="there is no store at"):
        store.weight(SITES[0].name)
    store.write(WEIGHTS, SITES, {})
    with pytest.raises(ValueError, match="holds no site unet.typo"):
        store.weight("unet.typo")
