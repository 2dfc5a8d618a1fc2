"""Energies that another prompt set of the same profile has already: copied, never computed again."""

from __future__ import annotations

import logging

from storage.activations import ActivationStore, captured_sets
from storage.zarrs import DamagedStore

log = logging.getLogger(__name__)

_known: dict[str, tuple[str, ...]] = {}  # by URL: a set's address is its prompts' digest, so they never change


def copy_captured(root: str, profile: str, prompt_set: str) -> int:
    """Copy every pending prompt that another set under the profile holds. Returns how many were copied."""
    store = ActivationStore(root, profile, prompt_set)
    wanted = {name: slot for slot, name in enumerate(store.names())}
    pending = set(store.pending())
    wanted = {name: slot for name, slot in wanted.items() if slot in pending}
    for other in captured_sets(root, profile):
        if other != prompt_set and wanted:
            _copy(store, ActivationStore(root, profile, other), wanted)
    return len(pending) - len(store.pending())


def _copy(store: ActivationStore, other: ActivationStore, wanted: dict[str, int]) -> None:
    """Copy what `other` has of {prompt name: slot}, and take it out of `wanted`."""
    there = {name: slot for slot, name in enumerate(_names(other)) if name in wanted}
    if not there:
        return
    pending = set(other.pending())
    ready = {name: slot for name, slot in there.items() if slot not in pending}
    try:
        store.copy(other, {wanted[name]: slot for name, slot in ready.items()})
    except DamagedStore as error:  # what is damaged there is captured here
        log.warning("%s; its prompts are captured again", error)
        return
    for name in ready:
        del wanted[name]


def _names(other: ActivationStore) -> tuple[str, ...]:
    """The names of a set's prompts, slot by slot; none of a set that is half planned."""
    if other.url not in _known:
        try:
            _known[other.url] = tuple(other.names())
        except ValueError:
            return ()
    return _known[other.url]
