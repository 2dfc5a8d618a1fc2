"""The activation store: its layout, and what it accepts."""

from __future__ import annotations

import pickle  # noqa: TID251  what dask sends to workers must be picklable; nothing from a store is unpickled
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from storage.activations import ActivationStore
from storage.roots import Root
from tests.activation_cases import (
    PROFILE,
    PROMPTS,
    SITES,
    TIMESTEPS,
    TOKENS,
    captured,
    chunk,
    energies,
    plan,
    planned,
)
from tests.storage_cases import drafts


@pytest.fixture
def store(root: str) -> ActivationStore:
    return planned(root)


@pytest.fixture
def full(root: str) -> ActivationStore:
    return captured(root)


def test_xarray_alone_opens_it_with_labels(full: ActivationStore) -> None:
    tree = xr.open_datatree(full.url, engine="zarr", consolidated=False, chunks={})
    assert set(tree.children) == {site.name for site in SITES}
    assert tree["text"].values.tolist() == [prompt.text for prompt in PROMPTS]
    assert tree["seed"].values.tolist() == [prompt.seed for prompt in PROMPTS]
    assert tree["timestep"].values.tolist() == TIMESTEPS
    assert set(tree.coords) == {"prompt", "text", "seed", "step", "timestep", "branch"}
    assert tree.attrs["sites"] == [site.name for site in SITES]
    assert tree.attrs["profile"] == PROFILE
    energy = tree[SITES[1].name]["energy"]
    assert energy.dims == ("prompt", "step", "branch", "neuron")
    assert energy.data.chunksize == (1, 3, 2, 5)
    np.testing.assert_array_equal(
        energy.sel(prompt=PROMPTS[2].name, branch="cond"), energies(2)[SITES[1].name][:, 1, :]
    )
    subset = tree.isel(prompt=[0, 2])  # a choice on the root reaches every site
    assert all(subset[site.name]["energy"].sizes["prompt"] == 2 for site in SITES)


def test_energy_is_lazy_and_labelled(full: ActivationStore) -> None:
    energy = full.energy(SITES[0].name)
    assert energy.data.chunks == ((1, 1, 1), (3,), (2,), (7,))
    assert set(energy.coords) == {"prompt", "text", "seed", "step", "timestep", "branch"}
    expected = np.stack([energies(slot)[SITES[0].name] for slot in range(3)])
    np.testing.assert_array_equal(energy, expected)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(energy)), expected)
    np.testing.assert_array_equal(energy.isel(prompt=[2, 0], step=slice(0, 2)), expected[[2, 0], :2])
    np.testing.assert_array_equal(energy.sel(prompt=PROMPTS[1].name, branch="cond"), expected[1, :, 1])


def test_what_was_planned_can_be_read_back(store: ActivationStore) -> None:
    assert store.sites() == SITES
    assert store.attributes() == PROFILE
    assert store.size() == 3
    assert store.prompts() == [(prompt.text, prompt.seed) for prompt in PROMPTS]


def test_each_chunk_is_one_prompt_and_uncompressed(root: str, full: ActivationStore) -> None:
    chunks = {name: size for name, size in full.path.files().items() if name.startswith(f"{SITES[0].name}/energy/c/")}
    assert list(chunks.values()) == [3 * 2 * 7 * 4 + 4] * 3  # and a crc32c
    assert drafts(root) == []


def test_pending_prompts_read_as_nan_and_energy_refuses_them(store: ActivationStore) -> None:
    assert store.pending() == [0, 1, 2]
    store.write(1, energies(), TOKENS)
    assert store.pending() == [0, 2]
    total = store.open()[SITES[0].name]["energy"].sum(("prompt", "branch"), skipna=False)
    assert np.isnan(total).all()  # a sum over what is missing is not a number, and not a smaller sum
    with pytest.raises(ValueError, match="2 of 3 prompts of .* are not captured yet; run the capture again"):
        store.energy(SITES[0].name)


def test_what_does_not_exist_is_refused(root: str, full: ActivationStore) -> None:
    with pytest.raises(ValueError, match=r"holds no site unet\.typo; it holds unet\.up"):
        full.energy("unet.typo")
    nothing = ActivationStore(root, "profile", "other")
    assert not nothing.exists()
    for read in (nothing.pending, nothing.open, nothing.sites, lambda: nothing.energy("x")):
        with pytest.raises(ValueError, match="there is no store at"):
            read()
    assert nothing.path.files() == {}


@pytest.mark.parametrize("part", ["prompts", "sites", "timesteps", "branches"])
def test_nothing_to_capture_is_refused(root: str, part: str) -> None:
    with pytest.raises(ValueError, match=f"without {part} were planned; give at least one"):
        plan(ActivationStore(root, "p", "s"), **{part: []})


@pytest.mark.parametrize("name", ["a/b", "../../up", "..", "", "__own"])
def test_site_names_never_leave_the_store(root: str, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a group"):
        plan(ActivationStore(root, "p", "s"), sites=[replace(SITES[0], name=name)])
    assert Root(root).path("activations").files() == {}


def test_addresses_never_leave_the_root(root: str) -> None:
    store = ActivationStore(f"{root}/inner", "../..", "a/../é 狐?#%2F")
    plan(store)
    store.write(0, energies(), TOKENS)
    assert store.exists()
    assert chunk(store, 0).exists()
    assert store.pending() == [1, 2]
    assert store.path.parent.parent.parent.url == Root(f"{root}/inner").url
    assert Root(root).path().folders() == ["inner"]


def changed(site: str, value: np.ndarray) -> dict[str, np.ndarray]:
    return {**energies(), site: value}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (energies() | {"unet.more": np.zeros(1)}, "unet.more is missing or was not planned"),
        ({SITES[0].name: energies()[SITES[0].name]}, f"{SITES[1].name} is missing or was not planned"),
        (changed(SITES[0].name, energies()[SITES[0].name][:2]), r"have the shape \(2, 2, 7\), but .* is \(3, 2, 7\)"),
        (changed(SITES[0].name, energies()[SITES[0].name] * np.float32(1.01)), "sum to 64.64 at step 0, branch 0, but"),
        (changed(SITES[1].name, np.full((3, 2, 5), np.inf)), "sum to inf .* 256 tokens; .* try float32"),
        (
            changed(SITES[1].name, np.where(np.arange(6).reshape(3, 2, 1) == 3, np.nan, 51.2) + np.zeros(5)),
            "step 1, br",
        ),
        (changed(SITES[1].name, np.tile([512.0, -256, 0, 0, 0], (3, 2, 1))), "not negative"),
    ],
    ids=["more sites", "fewer sites", "shape", "sum", "infinite", "not a number", "negative"],
)
def test_wrong_energies_are_refused_before_anything_is_written(
    store: ActivationStore, wrong: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        store.write(0, wrong, TOKENS)
    assert not chunk(store, 0).exists()
    assert store.pending() == [0, 1, 2]


def test_a_slot_or_token_count_that_is_missing_is_refused(store: ActivationStore) -> None:
    for slot in (3, -1):
        with pytest.raises(ValueError, match="is not one of the 3 prompts"):
            store.write(slot, energies(), TOKENS)
    with pytest.raises(ValueError, match="the number of tokens of .* is missing"):
        store.write(0, energies(), {})
