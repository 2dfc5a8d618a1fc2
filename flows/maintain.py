"""Looking after a store: every edit verified; old rankings, leftovers and damaged prompts dealt with where asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect import flow

from flows.artifacts import progress_artifacts, publish_upkeep
from flows.config import MaintenanceRequest
from flows.steps import Steps, ended, tracked
from storage.listing import edit_places
from storage.roots import Root
from storage.upkeep import activation_stores
from storage.zarrs import DamagedStore
from tasks.maintaining import check_energies, delete_leftovers, delete_rankings, verify_edits

CHUNK = 25  # edits a task: few enough for progress to show
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

    def failure(self) -> StoreDamaged | None:
        """What the run failed of; None if nothing stays damaged."""
        return StoreDamaged(self) if self.damaged else None

    @property
    def failed(self) -> bool:
        """Whether something stays damaged."""
        return bool(self.damaged)


class StoreDamaged(RuntimeError):
    """Something in a store is damaged and was not put right."""

    def __init__(self, found: Upkeep) -> None:
        super().__init__(f"{len(found.damaged)} damaged in {found.store}. {'; '.join(found.damaged.values())}")
        self.found = found


@flow(name="maintain", flow_run_name="maintain")
def maintain(request: MaintenanceRequest) -> dict[str, Any]:
    """Verify every edit of a store, and tidy up what was asked for. Fails at its end if something stays damaged."""
    with progress_artifacts():
        found = look_after(request, Steps(tracked))
    publish_upkeep(found)
    return ended(found.as_json(), found.failure())


def look_after(request: MaintenanceRequest, steps: Steps) -> Upkeep:
    """The flow's body. Raises ValueError if the store cannot be used."""
    Root(request.store).check()
    number, damaged = every_edit(request.store, steps)
    slots, broken = every_energy(request, steps) if request.energies != "skip" else ({}, {})
    if request.energies == "check":
        broken |= {store: f"{store}: the energies of slots {', '.join(map(str, bad))} are damaged; maintain with "
                   "energies = reset, then capture again" for store, bad in slots.items()}  # fmt: skip
    now, days = datetime.now(UTC), request.rankings_days
    old = [] if days is None else steps.call(delete_rankings, request.store, now - timedelta(days=days))
    left = steps.call(delete_leftovers, request.store, now - ABANDONED) if request.leftovers else []
    reset = slots if request.energies == "reset" else {}
    return Upkeep(request.store, number, {**damaged, **broken}, reset, old, left)


def every_edit(store: str, steps: Steps) -> tuple[int, dict[str, str]]:
    """Read every published edit. Returns how many edits and pointers there are, and what is wrong with which."""
    places = edit_places(store)
    found = [why for chunk in steps.in_turn("edits", verify_edits, (store,), places, CHUNK) for why in chunk]
    return len(places), {"/".join(place): why for place, why in zip(places, found, strict=True) if why}


def every_energy(request: MaintenanceRequest, steps: Steps) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Read all energies, and make damaged slots pending if so asked.

    Returns the damaged slots by store, and the stores of which not even that can be told, with the reason.
    """
    stores = activation_stores(request.store)
    slots: dict[str, list[int]] = {}
    broken: dict[str, str] = {}
    for number, store in enumerate(stores):
        steps.show("activations", number, len(stores))
        try:
            bad = steps.call(check_energies, store, request.energies == "reset")
        except DamagedStore as error:
            broken[store.url] = str(error)
        else:
            slots |= {store.url: bad} if bad else {}
    steps.show("activations", len(stores), len(stores))
    return slots, broken
