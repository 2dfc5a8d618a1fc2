"""Energies that another prompt set of the same profile has already: copied, never computed again."""

from __future__ import annotations

from functools import lru_cache

from storage.activations import ActivationStore, captured_sets


def copy_captured(root: str, profile: str, prompt_set: str) -> int:
    """Copy every pending prompt that another set under the profile holds. Returns how many were copied."""
    store, names = ActivationStore(root, profile, prompt_set), _names(root, profile, prompt_set)
    wanted = {names[slot]: slot for slot in store.pending()}
    copied = 0
    for other in captured_sets(root, profile):
        if other == prompt_set or not wanted:
            continue
        there = {name: slot for slot, name in enumerate(_names(root, profile, other)) if name in wanted}
        if there:
            source = ActivationStore(root, profile, other)
            pending = set(source.pending())
            ready = {wanted.pop(name): slot for name, slot in there.items() if slot not in pending}
            store.copy(source, ready)
            copied += len(ready)
    return copied


@lru_cache(maxsize=10_000)
def _names(root: str, profile: str, prompt_set: str) -> tuple[str, ...]:
    """The names of a set's prompts, slot by slot: its address is their digest, so they never change."""
    return tuple(ActivationStore(root, profile, prompt_set).names())
