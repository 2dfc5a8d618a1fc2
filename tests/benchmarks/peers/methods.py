"""What is compared: a row a method. Each makes its edit of one concept, timed, to go onto the pipeline under `with`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flows.config import Request
from flows.erase_concept import erase
from flows.plan import Plan, make_plan
from flows.steps import Steps
from storage.edits import DELTA, MASK, Edit, read_edit_at
from storage.masks import encode_masks
from storage.names import digest
from tasks.applying import with_edit
from tasks.catalogs import load_catalog
from tasks.concepts.catalog import Catalog
from tasks.concepts.concept import Expectation
from tasks.diffusion import pipelines
from tasks.metrics import classifier
from tests.benchmarks.paper_parts import Clock
from tests.benchmarks.peers.esd import Settings as EsdSettings
from tests.benchmarks.peers.esd import esd, prompts
from tests.benchmarks.peers.random_pruning import random_masks, smallest_masks, zeroed
from tests.benchmarks.peers.uce import Settings as UceSettings
from tests.benchmarks.peers.uce import uce
from tests.benchmarks.peers.wording import other_texts, words_of


@dataclass(frozen=True)
class Budget:
    """How much is run of each concept. None = all, or what the catalog says."""

    uce: UceSettings = field(default_factory=UceSettings)
    esd: EsdSettings = field(default_factory=EsdSettings)
    prompts: int | None = None  # evaluation prompts of the concept, and of others
    capture: dict[str, int] = field(default_factory=dict)  # of the request: steps, window, t_hat
    seed: int = 0  # of random pruning


FULL = Budget()
SMALL = Budget(
    esd=replace(EsdSettings(), iterations=2, steps=2), prompts=2, capture={"steps": 2, "window": 2, "t_hat": 2}
)
BUDGETS = {"full": FULL, "small": SMALL}


class Case:
    """One concept, and what methods need of it; what several need is made once."""

    def __init__(self, slug: str, catalog: str, budget: Budget, store: str) -> None:
        self.budget = budget
        request = Request(concept=slug, store=store, catalog=catalog, evaluate=False, **budget.capture)
        self.plan: Plan = make_plan(request)
        self.catalog: Catalog = load_catalog(request.catalog_url)
        self.concept = self.plan.concept
        self.words = words_of(self.catalog, slug)

    @cached_property
    def pipe(self) -> Any:
        """The pipeline, the same object that ConceptPrune captures with."""
        return pipelines.load(self.plan.request.model_spec)

    @property
    def expected(self) -> dict[str, tuple[Expectation, ...]]:
        """The evaluation's prompts, of the concept and of others."""
        asked, some = self.concept.evaluation, slice(self.budget.prompts)
        return {"concept": asked.concept[some], "others": asked.others[some]}

    @cached_property
    def pruned(self) -> tuple[Edit, Clock]:
        """ConceptPrune's edit at the catalog's preset, from an empty store."""
        assert self.pipe is not None  # loaded outside the clock, as for the peers
        with Clock() as clock:
            edit = read_edit_at(erase(self.plan, Steps(), table=False).url)
        return edit, clock

    def judged(self) -> dict[str, Any]:
        """All that decides what an image of this concept's evaluation is, and what is seen in it."""
        prompts = {
            part: [[e.prompt.text, e.prompt.seed, e.labels] for e in expected]
            for part, expected in self.expected.items()
        }
        judge = classifier.load(self.plan.request.judge_path).sha256
        return {"profile": self.plan.capture.profile, "judge": judge, "prompts": digest(prompts)}


@dataclass(frozen=True)
class Made:
    """An edit, ready to go onto the pipeline."""

    on: Callable[[Any], AbstractContextManager[Any]]
    clock: Clock  # making it, from the loaded model on
    bytes: int  # of the smallest artifact that it can be applied from
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """A way of erasing: how a concept's edit is made, and all that it depends on besides the evaluation."""

    make: Callable[[Case], Made]
    settings: Callable[[Case], Any]


def _unedited(case: Case) -> Made:
    return Made(nullcontext, Clock(), 0)


def _conceptprune(case: Case) -> Made:
    edit, clock = case.pruned
    share = float(np.mean([mask.mean() for mask in edit.masks().values()]))
    sizes = {name: entry["size"] for name, entry in edit.manifest["files"].items()}
    details = {"pruned": round(share, 4), "delta_bytes": sizes[DELTA]}
    return Made(lambda pipe: with_edit(pipe, str(edit.path)), clock, sizes[MASK], details)


def _uce(case: Case) -> Made:
    keep = _kept(case)
    with Clock() as clock:
        change = uce(case.pipe, case.concept, case.words, keep, case.budget.uce)
    return Made(change.on, clock, change.bytes, {"kept_texts": len(keep)})


def _kept(case: Case) -> list[str]:
    return other_texts(case.pipe, case.catalog, case.concept.slug)


def _esd(case: Case) -> Made:
    with Clock() as clock:
        tuned = esd(case.pipe, prompts(case.concept, case.words), case.budget.esd)
    some = -(-len(tuned.losses) // 4)
    losses = {"loss_first": float(np.mean(tuned.losses[:some])), "loss_last": float(np.mean(tuned.losses[-some:]))}
    return Made(tuned.change.on, clock, tuned.change.bytes, losses)


def _random(case: Case) -> Made:
    return _masked(case, lambda masks: random_masks(masks, case.budget.seed))


def _smallest(case: Case) -> Made:
    return _masked(case, lambda masks: smallest_masks(case.pipe, masks))


def _masked(case: Case, choose: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> Made:
    like = case.pruned[0].masks()
    with Clock() as clock:
        masks = choose(like)
    return Made(zeroed(case.pipe, masks).on, clock, len(encode_masks(masks, "")))


def _cut(case: Case) -> dict[str, Any]:
    return {"edit": case.plan.cut.draft.edit, "seed": case.budget.seed}


METHODS = {
    "unedited": Method(_unedited, lambda case: None),
    "ConceptPrune": Method(_conceptprune, lambda case: case.plan.cut.draft.edit),
    "UCE": Method(_uce, lambda case: [asdict(case.budget.uce), digest(_kept(case))]),
    "ESD-x": Method(_esd, lambda case: [asdict(case.budget.esd), prompts(case.concept, case.words)]),
    "random pruning": Method(_random, _cut),
    "smallest weights": Method(_smallest, _cut),
}  # fmt: skip
UNEDITED = "unedited"


@contextmanager
def opened(slug: str, catalog: str, budget: Budget) -> Iterator[Case]:
    """A concept's case, with a store of its own that is gone afterwards."""
    with tempfile.TemporaryDirectory() as store:
        yield Case(slug, catalog, budget, str(Path(store) / "store"))
