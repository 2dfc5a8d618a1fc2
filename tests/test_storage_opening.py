"""Stores opened by URL: lazy, labelled, and no damage taken for data."""

from __future__ import annotations

import pickle  # noqa: TID251  what dask sends to workers must be picklable; nothing from a store is unpickled
import re

import dask
import dask.array
import numpy as np
import pytest
import xarray as xr

from storage.activations import ActivationStore
from storage.models import ModelStore
from storage.opening import open_activations, open_tier
from storage.roots import Root
from storage.zarrs import DamagedStore
from tests import tier_cases
from tests.activation_cases import (
    BRANCHES,
    PROFILE,
    PROMPTS,
    SITES,
    TIMESTEPS,
    TOKENS,
    captured,
    chunk,
    energies,
    planned,
)
from tests.storage_cases import cut, delete, empty, flip

SITE = SITES[0].name


@pytest.fixture
def full(root: str) -> ActivationStore:
    return captured(root)


def test_it_is_a_tree_of_labelled_sites(full: ActivationStore) -> None:
    tree = open_activations(full.url)
    assert list(tree.children) == tree.attrs["sites"] == [site.name for site in SITES]
    assert tree.attrs["profile"] == PROFILE
    assert tree["complete"].values.tolist() == [1, 1, 1]
    for slot, site in ((0, SITES[0]), (2, SITES[1])):
        child = tree[site.name]
        assert child.attrs == {"kind": site.kind, "width": site.width, "rows": site.rows}
        energy = child["energy"]
        assert (energy.dims, energy.dtype) == (("prompt", "step", "branch", "neuron"), np.float32)
        assert set(energy.coords) == {"prompt", "text", "seed", "step", "timestep", "branch", "neuron"}
        assert energy["text"].values.tolist() == [prompt.text for prompt in PROMPTS]
        assert energy["seed"].values.tolist() == [prompt.seed for prompt in PROMPTS]
        assert energy["timestep"].values.tolist() == TIMESTEPS
        assert energy["branch"].values.tolist() == BRANCHES
        assert energy.attrs["long_name"].startswith("sum over tokens")
        np.testing.assert_array_equal(energy[slot], energies(slot)[site.name])


def test_it_is_lazy_a_chunk_a_prompt_and_travels(full: ActivationStore, monkeypatch: pytest.MonkeyPatch) -> None:
    energy = open_activations(full.url)[SITE]["energy"]
    assert isinstance(energy.data, dask.array.Array)
    assert energy.data.chunks == ((1, 1, 1), (3,), (2,), (7,))
    delete(chunk(full, 0))
    np.testing.assert_array_equal(energy[1:].mean("prompt"), np.mean([energies(1)[SITE], energies(2)[SITE]], 0))
    moved = pickle.loads(pickle.dumps(energy))
    np.testing.assert_array_equal(moved.isel(prompt=2), energies(2)[SITE])


def test_labels_select(full: ActivationStore) -> None:
    tree = open_activations(full.url)
    energy = tree[SITE]["energy"]
    one = energy.sel(prompt=PROMPTS[1].name, branch="cond", step=2, neuron=[4, 6])
    np.testing.assert_array_equal(one, energies(1)[SITE][2, 1, [4, 6]])
    empty_text = energy.isel(prompt=energy["text"].values == "")
    np.testing.assert_array_equal(empty_text[0], energies(1)[SITE])
    subset = tree.isel(prompt=[2, 0]).sel(branch="uncond")
    for site in SITES:
        expected = np.stack([energies(slot)[site.name][:, 0] for slot in (2, 0)])
        np.testing.assert_array_equal(subset[site.name]["energy"], expected)
    both = xr.concat([energy.mean("prompt"), energy.max("prompt")], "role").assign_coords(role=["target", "reference"])
    assert both.sel(role="target").dims == ("step", "branch", "neuron")


def test_pending_prompts_are_nan_whatever_is_there(root: str) -> None:
    store = planned(root)
    store.write(0, energies(0), TOKENS)
    store.write(1, energies(1), TOKENS)
    store.reset(1)  # its chunks are there, as a writer leaves them that was cut off
    tree = open_activations(store.url)
    assert tree["complete"].values.tolist() == [1, 0, 0]
    energy = tree[SITE]["energy"]
    np.testing.assert_array_equal(energy[0], energies(0)[SITE])
    for part in (energy[1:], energy.isel(prompt=1, step=slice(0, 2)), energy[2, 0, 1, [3, 1]], energy[-1, ..., 2]):
        assert part.dtype == np.float32
        assert np.isnan(part).all()
    store.write(1, energies(1), TOKENS)
    assert np.isnan(energy[1]).all()  # as it was when it was opened
    np.testing.assert_array_equal(open_activations(store.url)[SITE]["energy"][1], energies(1)[SITE])


def test_a_damaged_chunk_of_a_complete_prompt_raises(full: ActivationStore) -> None:
    message = rf"{re.escape(full.url)}: {re.escape(SITE)}/energy, prompt 1 .{PROMPTS[1].name}., is damaged"
    for damage in (flip, cut, empty, delete):
        damage(chunk(full, 1))
        energy = open_activations(full.url)[SITE]["energy"]
        with pytest.raises(DamagedStore, match=message):
            energy.sum("prompt").compute()
        assert np.isfinite(energy.isel(prompt=[0, 2])).all()
        full.reset(1)
        full.write(1, energies(1), TOKENS)


@pytest.mark.parametrize("name", ["complete", "text", "timestep"])
def test_damage_of_a_coordinate_or_mark_raises(full: ActivationStore, name: str) -> None:
    delete(full.path / name / "c" / "0")
    with pytest.raises(DamagedStore, match=f"its list of prompts and steps is damaged .*{name}/c/0 is missing"):
        open_activations(full.url)


def test_what_is_no_such_store_is_refused(root: str, full: ActivationStore) -> None:
    with pytest.raises(ValueError, match="there is no store at"):
        open_activations(f"{Root(root).url}/activations/profile/other.zarr")
    with pytest.raises(ValueError, match="is of schema conceptprune-activations, not conceptprune-tier 1"):
        open_tier(full.url)
    model = ModelStore(root, "m")
    weights = {site.name: np.zeros((site.rows, site.width), "f4") for site in SITES}
    model.write(weights, SITES, {})
    with pytest.raises(ValueError, match="is of schema conceptprune-model, not conceptprune-activations 1"):
        open_activations(model.url)


def test_a_raw_tier_has_places_of_tokens(root: str) -> None:
    store = tier_cases.observed(root, "raw")
    tree = open_tier(store.url)
    assert list(tree.children) == [site.name for site in SITES]
    assert tree["step"].values.tolist() == tier_cases.STEPS
    assert tree["timestep"].values.tolist() == [TIMESTEPS[step] for step in tier_cases.STEPS]
    x = tree[SITE]["activation"]
    assert (x.dims, x.dtype) == (("prompt", "step", "branch", "token", "neuron"), np.float16)
    assert x.data.chunks == ((1, 1, 1), (1, 1), (2,), (6,), (7,))
    assert tree[SITE].attrs["grid"] == [2, 3]
    image = x.set_index(token=("y", "x")).unstack("token").transpose(..., "y", "x")
    expected = tier_cases.values("raw", 1)[SITE]["activation"].astype("f2")
    np.testing.assert_array_equal(image[1, 1, 0, 3], expected[1, 0, :, 3].reshape(2, 3))
    text = tree[SITES[1].name]["activation"]
    assert "y" not in text.coords
    assert text["token"].values.tolist() == list(range(5))


def test_a_pooled_tier_reads_back_and_its_damage_raises(root: str) -> None:
    store = tier_cases.observed(root, "pooled")
    site = open_tier(store.url)[SITE]
    for variable in ("mean", "absmax", "positive"):
        assert site[variable].data.chunks == ((1, 1, 1), (2,), (2,), (7,))
        np.testing.assert_array_equal(site[variable][2], tier_cases.values("pooled", 2)[SITE][variable])
    flip(store.path / SITE / "absmax" / "c" / "1" / "0" / "0" / "0")
    with pytest.raises(DamagedStore, match=r"absmax, prompt 1 .* is damaged"):
        open_tier(store.url)[SITE]["absmax"].compute()
    with dask.config.set(scheduler="synchronous"):
        assert np.isfinite(open_tier(store.url)[SITE]["mean"]).all()
