"""Cuts: one edit to be made from stored energies, as plain values that flows plan with and tasks take."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from storage.drafts import EditDraft
from storage.names import digest
from storage.rankings import RankingStore
from tasks.catalogs import load_catalog
from tasks.concepts.concept import Expectation
from tasks.diffusion.spec import Branch, CaptureSpec, ModelSpec, NeuronSite, PruneSpec

PACKAGES = ("conceptprune", "torch", "diffusers", "transformers", "numpy", "numba", "zarr", "xarray", "dask")


@cache
def _versions() -> Mapping[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


@dataclass(frozen=True)
class RankingKey:
    """Which ranking: of a model's weights, by the energies of a pair of prompt sets under a profile."""

    model: str
    profile: str
    reference: str
    target: str
    branch: Branch
    prompts: str | None = None  # slots of both sets that count, as in PruneSpec; None = all

    def open(self, root: str) -> RankingStore:
        """The store under a root."""
        return RankingStore(
            root, self.profile, self.reference, self.target, model=self.model, branch=self.branch, prompts=self.prompts
        )


@dataclass(frozen=True)
class EvaluationPart:
    """Where a part of an evaluation's prompts stands: tasks take this, never the prompts."""

    catalog: str  # path or URL
    concept: str
    part: str  # "concept" or "others"

    def expectations(self) -> Sequence[Expectation]:
        """The prompts with the labels that their images should get."""
        evaluation = load_catalog(self.catalog)[self.concept].evaluation
        return evaluation.concept if self.part == "concept" else evaluation.others

    def size(self) -> int:
        """How many prompts there are."""
        return len(self.expectations())


@dataclass(frozen=True)
class Half:
    """Every other prompt of a part: settings are chosen on one half and confirmed on the other."""

    whole: EvaluationPart
    held_out: bool

    @property
    def part(self) -> str:
        """The part's name, and which half."""
        return f"{self.whole.part}-{'held-out' if self.held_out else 'validation'}"

    def expectations(self) -> Sequence[Expectation]:
        """The prompts of this half."""
        return self.whole.expectations()[int(self.held_out) :: 2]


@dataclass(frozen=True)
class Evaluation:
    """How an edit is judged."""

    model: ModelSpec  # what draws the images
    capture: CaptureSpec  # how they are drawn; the window is not used
    parts: tuple[EvaluationPart, ...]
    judge: Path  # a folder
    judge_sha256: str  # of its weights
    prompts: str  # digest of the prompts and the labels expected


@dataclass(frozen=True)
class Cut:
    """One edit to be made from stored energies: all that decides its files."""

    store: str
    model: Mapping[str, Any]  # the manifest's model, without its weights' fingerprint
    sites: tuple[NeuronSite, ...]
    ranking: RankingKey
    slug: str
    prune: PruneSpec
    evaluation: Evaluation | None = None

    @property
    def draft(self) -> EditDraft:
        """The edit's address: its digest covers the ranking, the prune spec and the evaluation."""
        shown = None if self.evaluation is None else [self.evaluation.judge_sha256, self.evaluation.prompts]
        ranking = [self.ranking.model, self.ranking.profile, self.ranking.reference, self.ranking.target]
        return EditDraft(self.store, self.ranking.model, self.slug, digest([ranking, self.prune.as_json(), shown]))

    def manifest(self) -> dict[str, Any]:
        """The manifest's own fields, but for the weights' fingerprint; the store adds the format, files and time."""
        return {
            "model": dict(self.model),
            "profile": self.ranking.profile,
            "prune": self.prune.as_json(),
            "prompt_sets": {"reference": self.ranking.reference, "target": self.ranking.target},
            "versions": dict(_versions()),
        }

    def report(
        self, sites: Mapping[str, Any], evaluation: Mapping[str, Any] | None, seconds: Mapping[str, float]
    ) -> dict[str, Any]:
        """report.json: densities by site, evaluation, seconds by stage, bytes, and the machine that took them."""
        return {
            "sites": dict(sites),
            "evaluation": None if evaluation is None else dict(evaluation),
            "seconds": dict(seconds),
            "bytes": self.draft.sizes(),
            "machine": {"processor": platform.machine(), "system": platform.system()},
        }
