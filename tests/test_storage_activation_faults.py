"""The activation store under damage, kills, races and changed plans."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import zarr

from storage.activations import ActivationStore
from storage.places import Place
from storage.roots import Root
from storage.zarrs import DamagedStore
from tests.activation_cases import (
    PROFILE,
    PROMPTS,
    SITES,
    TOKENS,
    captured,
    chunk,
    energies,
    plan,
    planned,
)
from tests.storage_cases import content, cut, delete, drafts, empty, flip, kill


@pytest.fixture
def store(root: str) -> ActivationStore:
    return planned(root)


@pytest.fixture
def full(root: str) -> ActivationStore:
    return captured(root)


def test_a_damaged_chunk_raises_with_store_site_and_prompt(full: ActivationStore) -> None:
    energy = full.energy(SITES[0].name)
    message = f"{re.escape(full.url)}: site {SITES[0].name}, prompt 1 .{PROMPTS[1].name}., is damaged"
    for damage in (flip, cut, empty, delete):
        damage(chunk(full, 1))
        with pytest.raises(DamagedStore, match=message):
            energy.sum("prompt").compute()
        assert np.isfinite(energy.isel(prompt=[0, 2])).all()
        full.reset(1)
        assert full.pending() == [1]
        full.write(1, energies(1), TOKENS)
        np.testing.assert_array_equal(energy.isel(prompt=1), energies(1)[SITES[0].name])


@pytest.mark.parametrize("damage", [flip, delete])
def test_damage_of_a_coordinate_or_mark_raises(full: ActivationStore, damage: Callable[[Place], None]) -> None:
    for name in ("complete", "text", "timestep"):
        place = full.path / name / "c" / "0"
        sound = content(place)
        damage(place)
        with pytest.raises(DamagedStore, match="is damaged"):
            full.energy(SITES[0].name)
        place.put(sound)
    full.energy(SITES[0].name)


DYING = """
store = ActivationStore({root!r}, "profile", "prompt-set")
write, left = zarr.Array.__setitem__, {writes}
def mortal(self, key, value):
    global left
    if left == 0:
        die()
    left -= 1
    write(self, key, value)
zarr.Array.__setitem__ = mortal
store.write({slot}, energies(), TOKENS)
"""


def test_a_prompt_that_was_cut_off_is_pending(root: str, store: ActivationStore) -> None:
    half, unmarked = (DYING.format(root=root, writes=writes, slot=slot) for slot, writes in ((0, 1), (1, len(SITES))))
    kill("import zarr\nfrom tests.activation_cases import *", half, unmarked)
    assert chunk(store, 1).exists()
    assert store.pending() == [0, 1, 2]
    for slot in store.pending():  # a rerun does what is missing
        store.write(slot, energies(slot), TOKENS)
    np.testing.assert_array_equal(store.energy(SITES[1].name)[0], energies(0)[SITES[1].name])


def test_a_complete_prompt_never_changes(full: ActivationStore) -> None:
    full.write(0, energies(99), TOKENS)
    np.testing.assert_array_equal(full.energy(SITES[0].name)[0], energies(0)[SITES[0].name])


def test_planners_that_race_agree(root: str) -> None:
    barrier = threading.Barrier(4)

    def race(_: int) -> list[int]:
        store = ActivationStore(root, "profile", "prompt-set")
        barrier.wait()
        plan(store)
        return store.pending()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(race, range(4))) == [[0, 1, 2]] * 4
    assert Root(root).path("activations", "profile").folders() == ["prompt-set.zarr"]
    assert drafts(root) == []


def test_planning_again_keeps_what_was_captured(full: ActivationStore) -> None:
    plan(full)
    assert full.pending() == []


def test_fault_4_other_prompts_steps_or_model_are_never_reused(full: ActivationStore) -> None:
    others: list[tuple[str, Any]] = [
        ("prompts", PROMPTS[:2]),
        ("prompts", [replace(PROMPTS[0], seed=5), *PROMPTS[1:]]),
        ("sites", SITES[::-1]),
        ("sites", [replace(SITES[0], width=8), SITES[1]]),
        ("timesteps", [981, 961, 941]),
        ("branches", ["cond", "uncond"]),
        ("attributes", {**PROFILE, "guidance": 4.0}),
    ]
    for part, value in others:
        what = "profile" if part == "attributes" else part
        with pytest.raises(ValueError, match=f"was planned with other {what};"):
            plan(full, **{part: value})
    assert full.pending() == []


def test_writers_of_different_prompts_need_no_lock(store: ActivationStore) -> None:
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda slot: store.write(slot, energies(slot), TOKENS), range(3)))
    for site in SITES:
        expected = np.stack([energies(slot)[site.name] for slot in range(3)])
        np.testing.assert_array_equal(store.energy(site.name), expected)


def test_an_interrupted_deletion_is_not_taken_for_a_store(full: ActivationStore) -> None:
    (full.path / "zarr.json").delete()
    with pytest.raises(DamagedStore, match="an interrupted deletion left; delete it"):
        plan(full)
    full.path.delete()
    plan(full)
    assert full.pending() == [0, 1, 2]


def test_another_schema_is_refused(full: ActivationStore) -> None:
    zarr.open_group(full.path.store(writable=True), mode="r+", use_consolidated=False).attrs["schema_version"] = 0
    with pytest.raises(ValueError, match="is not of schema conceptprune-activations 1"):
        plan(full)
