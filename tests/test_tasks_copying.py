"""Prompts that another set holds are copied, bit for bit, and never computed again."""

from __future__ import annotations

import numpy as np
import pytest

from storage.activations import ActivationStore
from storage.zarrs import DamagedStore
from tasks.concepts.prompts import Prompt
from tasks.copying import copy_captured
from tests.activation_cases import PROMPTS, SITES, TOKENS, chunk, energies, plan
from tests.storage_cases import flip

MORE = Prompt("a cat", 7)


def one_and_other(root: str) -> tuple[ActivationStore, ActivationStore]:
    """A set of three captured prompts, and another that has two of them, in another order, and one more."""
    one, other = (ActivationStore(root, "profile", name) for name in ("one", "other"))
    plan(one)
    for slot in range(3):
        one.write(slot, energies(slot), TOKENS)
    plan(other, prompts=[PROMPTS[2], MORE, PROMPTS[0]])
    return one, other


def test_what_another_set_has_is_copied(root: str) -> None:
    one, other = one_and_other(root)
    assert copy_captured(root, "profile", "other") == 2
    assert other.pending() == [1]
    other.write(1, energies(9), TOKENS)
    for site in SITES:
        there, here = one.energy(site.name), other.energy(site.name)
        np.testing.assert_array_equal(here[[0, 2]], there[[2, 0]])
        np.testing.assert_array_equal(here[1], energies(9)[site.name])
    assert copy_captured(root, "profile", "other") == 0


def test_what_is_pending_or_of_another_profile_is_not(root: str) -> None:
    one, other = one_and_other(root)
    one.reset(0)
    assert copy_captured(root, "profile", "other") == 1
    assert other.pending() == [1, 2]
    elsewhere = ActivationStore(root, "another profile", "other")
    plan(elsewhere, prompts=[PROMPTS[1]])
    assert copy_captured(root, "another profile", "other") == 0


def test_what_is_damaged_there_is_left_to_be_captured(root: str) -> None:
    one, other = one_and_other(root)
    flip(chunk(one, 0))
    copy_captured(root, "profile", "other")
    assert 2 in other.pending()
    other.write(1, energies(9), TOKENS)
    for slot in other.pending():
        other.write(slot, energies(slot), TOKENS)
    other.energy(SITES[0].name).load()


def test_another_prompt_is_never_copied(root: str) -> None:
    one, other = one_and_other(root)
    with pytest.raises(ValueError, match="holds another prompt than slot 1"):
        other.copy(one, {1: 1})
    flip(chunk(one, 2))
    with pytest.raises(DamagedStore, match="slot 2"):
        other.copy(one, {0: 2})
    assert other.pending() == [0, 1, 2]
