"""Looking after a store: every edit verified; old rankings, leftovers and damaged prompts dealt with where asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import flow

from flows.artifacts import progress_artifacts, publish_upkeep
from flows.config import MaintenanceRequest
from flows.steps import Steps, tracked
from storage import upkeep
from storage.roots import Root
from storage.zarrs import DamagedStore

ABANDONED = timedelta(days=1)  # no writer keeps a draft so long


@dataclass(frozen=True)
class Upkeep:
    """What was found in a store, and done about it."""

    store: str
    edits: int  # verified, with the pointers to the latest
    damaged: Mapping[str, str]  # what: why
    reset: Mapping[str, Sequence[int]]  # activation store: slots that the next capture fills again
    rankings: Sequence[str]  # deleted
    leftovers: Sequence[str]  # deleted

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {**vars(self), "damaged": dict(self.damaged), "reset": {k: list(v) for k, v in self.reset.items()},
                "rankings": list(self.rankings), "leftovers": list(self.leftovers)}  # fmt: skip

    def check(self) -> None:
        """Raises RuntimeError if something is damaged and was not put right."""
        if self.damaged:
            raise RuntimeError(f"{len(self.damaged)} damaged in {self.store}. {'; '.join(self.damaged.values())}")


@flow(name="maintain", flow_run_name="maintain")
def maintain(request: MaintenanceRequest) -> dict[str, Any]:
    """Verify every edit of a store, and tidy up what was asked for. Fails at its end if something stays damaged."""
    with progress_artifacts():
        found = look_after(request, Steps(tracked))
    publish_upkeep(found)
    found.check()
    return found.as_json()


def look_after(request: MaintenanceRequest, steps: Steps) -> Upkeep:
    """The flow's body. Raises ValueError if the store cannot be used."""
    Root(request.store).check()
    number, damaged = verify_edits(request.store, steps)
    slots, broken = check_energies(request, steps) if request.energies != "skip" else ({}, {})
    if request.energies == "check":
        broken |= {store: f"{store}: the energies of slots {', '.join(map(str, bad))} are damaged; maintain with "
                   "energies = reset, then capture again" for store, bad in slots.items()}  # fmt: skip
    now, old = datetime.now(UTC), []
    if request.rankings_days is not None:
        for place in upkeep.old_rankings(request.store, now - timedelta(days=request.rankings_days)):
            place.delete()
            old.append(str(place))
    left = upkeep.leftovers(request.store, now - ABANDONED) if request.leftovers else []
    for path in left:
        upkeep.remove_leftover(path)
    reset = slots if request.energies == "reset" else {}
    return Upkeep(request.store, number, {**damaged, **broken}, reset, old, list(map(str, left)))


def verify_edits(store: str, steps: Steps) -> tuple[int, dict[str, str]]:
    """Read every published edit. Returns how many edits and pointers there are, and what is wrong with which."""
    places = upkeep.edit_places(store)
    damaged = {}
    for number, (model, concept, edit) in enumerate(places):
        steps.show("edits", number, len(places))
        if why := upkeep.damage(store, model, concept, edit):
            damaged[f"{model}/{concept}/{edit}"] = why
    steps.show("edits", len(places), len(places))
    return len(places), damaged


def check_energies(request: MaintenanceRequest, steps: Steps) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Read all energies, and make damaged slots pending if so asked.

    Returns the damaged slots by store, and the stores of which not even that can be told, with the reason.
    """
    stores = upkeep.activation_stores(request.store)
    slots: dict[str, list[int]] = {}
    broken: dict[str, str] = {}
    for number, store in enumerate(stores):
        steps.show("activations", number, len(stores))
        try:
            bad = upkeep.damaged_slots(store)
            for slot in bad if request.energies == "reset" else ():
                store.reset(slot)
        except DamagedStore as error:
            broken[store.url] = str(error)
        else:
            slots |= {store.url: bad} if bad else {}
    steps.show("activations", len(stores), len(stores))
    return slots, broken
