"""Tasks that look after a store: every edit and energy read, what is damaged or old dealt with. No torch, no model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage import upkeep
from storage.activations import ActivationStore
from storage.parallel import at_once


@task(name="verify-edits", cache_policy=NO_CACHE)
def verify_edits(store: str, places: Sequence[tuple[str, str, str]]) -> list[str | None]:
    """Read all of the edits at (model, concept, edit). Returns for each what is wrong with it, in a sentence."""
    return at_once(lambda place: upkeep.damage(store, *place), places)


@task(name="check-energies", cache_policy=NO_CACHE)
def check_energies(store: ActivationStore, reset: bool) -> list[int]:
    """Read all energies of a prompt set. Returns the damaged slots, which are pending from then on if `reset`.

    Raises DamagedStore if not even that can be told.
    """
    slots = upkeep.damaged_slots(store)
    for slot in slots if reset else ():
        store.reset(slot)
    return slots


@task(name="delete-rankings", cache_policy=NO_CACHE)
def delete_rankings(store: str, before: datetime) -> list[str]:
    """Delete the rankings that were begun before a time: they can be computed again. Returns their URLs."""
    places = list(upkeep.old_rankings(store, before))
    at_once(lambda place: place.delete(), places)
    return [str(place) for place in places]


@task(name="delete-leftovers", cache_policy=NO_CACHE)
def delete_leftovers(store: str, before: datetime) -> list[str]:
    """Delete the drafts of killed writers, untouched since a time. Returns their paths."""
    paths = upkeep.leftovers(store, before)
    for path in paths:
        upkeep.remove_leftover(path)
    return [str(path) for path in paths]
