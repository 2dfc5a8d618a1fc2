"""The capture of prompt sets, each once, whoever needs it; and how long that takes, as earlier runs took."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from random import randrange

from flows.plan import Capture
from flows.steps import NoLimit, Steps
from storage import tables
from storage.models import ModelStore
from storage.parallel import at_once
from tasks.capturing import capture_batch, lay_out, store_model
from tasks.concepts.prompts import PromptSet
from tasks.failures import reason

TABLE = "captures"  # a row for each run that captured something: profile, device, machine, prompts, seconds


def capture(plan: Capture, sets: Mapping[str, PromptSet], steps: Steps, batch: int) -> None:
    """Make sure that the model's weights and the energies of every set, by what it is for, are in the store."""
    with steps.stage("capture"), Speed(plan) as speed:
        keep_model(plan, steps)
        for label, prompts in sets.items():
            speed.prompts += capture_set(plan, f"capture {label}", prompts, steps, batch)


def capture_sets(plan: Capture, sets: Sequence[PromptSet], steps: Steps, batch: int) -> dict[str, str]:
    """Make sure that the model's weights and the energies of every set are in the store.

    Returns the sets that failed, with the reason. The first set is drawn by lot, so that runs of one catalog at the
    same time share the work: each finds done what another was at.
    """
    failed: dict[str, str] = {}
    with steps.stage("capture"), Speed(plan) as speed:
        keep_model(plan, steps)
        first = randrange(len(sets)) if sets else 0
        for number, prompts in enumerate([*sets[first:], *sets[:first]], 1):
            label = f"capture set {number}/{len(sets)}"
            try:
                speed.prompts += capture_set(plan, label, prompts, steps, batch)
            except NoLimit:
                raise  # the next set would find none either
            except Exception as error:
                failed[prompts.digest] = reason(error, label)
            steps.show("prompt sets", number, len(sets))
    return failed


def lacking(plan: Capture, sets: Iterable[PromptSet]) -> list[PromptSet]:
    """The sets that lack prompts."""
    sets = list(sets)
    return [prompts for prompts, count in zip(sets, at_once(plan.missing, sets), strict=True) if count]


def keep_model(plan: Capture, steps: Steps) -> None:
    """Make sure that the weights of the sites are in the store."""
    if not ModelStore(plan.store, plan.card.key).exists():
        with steps.gpu_slot():
            steps.call(store_model, plan.store, plan.model, plan.card.key, plan.sites, plan.document["model"])


def capture_set(plan: Capture, label: str, prompts: PromptSet, steps: Steps, batch: int) -> int:
    """Make sure that the energies of one set are in the store. Returns how many prompts the model was run on."""
    if not plan.missing(prompts):
        return 0
    common = (plan.store, plan.model, plan.spec, plan.profile)
    with steps.gpu_slot():
        pending = steps.call(lay_out, *common, prompts, plan.sites, plan.document)
        return sum(steps.in_turn(label, capture_batch, (*common, prompts.digest, plan.sites), pending, batch))


class Speed:
    """Takes the time of a capture while the block runs, and keeps it in a table of the store."""

    def __init__(self, plan: Capture) -> None:
        self.plan = plan
        self.prompts = 0  # that the model was run on

    def __enter__(self) -> Speed:
        self._start = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        if self.prompts:
            row = {"profile": self.plan.profile, "device": self.plan.model.device, "machine": platform.machine(),
                   "prompts": self.prompts, "seconds": round(time.monotonic() - self._start, 3)}  # fmt: skip
            tables.write_rows(self.plan.store, TABLE, [row])


def seconds_a_prompt(plan: Capture) -> float | None:
    """How long a prompt takes, loading the model included, by earlier captures under the profile; None if none is."""
    rows = [
        row
        for row in tables.read(plan.store, TABLE).to_pylist()
        if (row["profile"], row["device"], row["machine"]) == (plan.profile, plan.model.device, platform.machine())
    ]
    prompts = sum(row["prompts"] for row in rows)
    return sum(row["seconds"] for row in rows) / prompts if prompts else None
