"""What an edit does to images: its concept's prompts, others', or a file's, drawn before and after and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from prefect import flow
from pydantic import Field, TypeAdapter

from flows.artifacts import progress_artifacts, publish_evaluation
from flows.config import Common
from flows.evaluation_outcome import TABLE, EvaluationOutcome, NumberRow, rows_of
from flows.protocols import protocol
from flows.specs import capture_spec
from flows.steps import Steps, tracked
from storage import tables
from storage.activations import ActivationStore
from storage.edits import Edit
from storage.listing import find_edit
from storage.roots import Root
from tasks.catalogs import load_catalog
from tasks.checking import ModelCard, check_model
from tasks.cuts import EvaluationPart
from tasks.diffusion.spec import CaptureSpec, ModelSpec
from tasks.drawing import Draw, Prompts, draw_batch
from tasks.measuring import MetricSpec, check_metric, measure
from tasks.naming import words
from tasks.prompt_files import PromptFile

DRAW_SCHEMA = 1


class EvaluateRequest(Common):
    """An edit, what it is measured by, and on which prompts."""

    concept: str = Field(min_length=1, max_length=200, description="its slug, such as fox")
    edit: str = Field(default="latest", description="the edit's digest, or latest")
    metrics: list[str] | None = Field(
        default=None,
        min_length=1,
        description="such as classifier, nudenet, clip-similarity=FOLDER; else the protocol's",
    )
    prompt_file: str | None = Field(default=None, description="file of prompts; else the catalog's of the concept")
    protocol: str | None = Field(default=None, description="what the file is of, such as i2p: its columns and metrics")
    label: str | None = Field(default=None, description="of the file's images, such as object:fox, for the judge")
    seeds: int = Field(default=1, ge=1, le=10_000, description="images a prompt of the file")
    limit: int | None = Field(default=None, ge=1, description="prompts of the file at most")
    originals: str | None = Field(default=None, description="folder of pictures, for the metric copies")
    threshold: float | None = Field(default=None, gt=0, lt=1, description="of nudenet and copies")


@dataclass(frozen=True)
class EvaluationPlan:
    """An evaluation to be made."""

    request: EvaluateRequest
    edit: Edit
    before: Draw
    after: Draw
    parts: tuple[Prompts, ...]
    metrics: tuple[MetricSpec, ...]

    def cost(self) -> str:
        """What it costs, before it begins."""
        sizes = [len(part.expectations()) for part in self.parts]
        missing = sum(
            len(draw.store().missing([one.prompt.name for one in part.expectations()]))
            for draw in (self.before, self.after) for part in self.parts
        )  # fmt: skip
        names = ", ".join(metric.name for metric in self.metrics)
        return f"evaluate: {sum(sizes)} prompts, {missing} of {2 * sum(sizes)} images to draw; by {names}"


@flow(name="evaluate", flow_run_name="evaluate-{request.concept}")
def evaluate(request: EvaluateRequest) -> dict[str, Any]:
    """Measure an edit: draw prompts before and after, and let each metric say what it sees."""
    with progress_artifacts():
        outcome = evaluate_all(plan_evaluate(request), Steps(tracked))
    publish_evaluation(outcome)
    return outcome.as_json()


def plan_evaluate(request: EvaluateRequest) -> EvaluationPlan:
    """The edit, the draws and the metrics, checked. Raises ValueError in one sentence; nothing is loaded or drawn."""
    Root(request.store).check()
    edit = find_edit(request.store, request.concept, request.edit)
    before, after = draws(request, edit)
    return EvaluationPlan(request, edit, before, after, _parts(request), _metrics(request))


def draws(request: Common, edit: Edit) -> tuple[Draw, Draw]:
    """How images are drawn before and after an edit. Raises ValueError if the model is not the edit's base."""
    model, capture, card = _drawing(request, edit)
    known = edit.manifest["model"]
    if card.fingerprint != known["fingerprint"]:
        raise ValueError(
            f"{model.path} ({card.fingerprint[:12]}) is not the model that the edit was made for, {known['id']} "
            f"({known['fingerprint'][:12]}): an edit is evaluated on its own base; give that one with --model"
        )
    about = {
        "schema": DRAW_SCHEMA,
        "model": {name: getattr(card, name) for name in ("id", "revision", "fingerprint", "variant")},
        "dtype": model.dtype,
        "scheduler": card.scheduler,
        "drawing": {"steps": capture.steps, "guidance": float(capture.guidance), "height": capture.height,
                    "width": capture.width},
        "safety_checker": "off",
    }  # fmt: skip
    before = Draw(Root(request.store).url, model, capture, {**about, "edit": None})
    edited = {"edit": edit.id, "manifest": edit.digest}
    return before, replace(before, about={**about, "edit": edited}, edit=str(edit.path), weights=known["weights"])


def evaluate_all(plan: EvaluationPlan, steps: Steps) -> EvaluationOutcome:
    """The flow's body. What was drawn or measured before is taken as it is."""
    with steps.stage("draw"):
        for part in plan.parts:
            slots = range(len(part.expectations()))
            for when, draw in (("before", plan.before), ("after", plan.after)):
                steps.in_turn(f"draw {part.part} {when}", draw_batch, (draw, part), slots, plan.request.batch)
    found: list[dict[str, Any]] = []
    with steps.stage("measure"):
        jobs = [(metric, part) for part in plan.parts for metric in plan.metrics]
        for number, (metric, part) in enumerate(jobs):
            steps.show("measurements", number, len(jobs))
            found.append(steps.call(measure, metric, plan.request.catalog_url, plan.before, plan.after, part))
        steps.show("measurements", len(jobs), len(jobs))
    return EvaluationOutcome.of(plan.edit, plan.before.root, found, table_numbers(plan, found))


def table_numbers(plan: EvaluationPlan, found: Sequence[Mapping[str, Any]]) -> list[NumberRow]:
    """The numbers as rows; those that the store's table lacks join it."""
    rows = [row for one in found for row in rows_of(plan.edit, one)]
    known = tables.values(plan.before.root, TABLE, "url")
    new = [asdict(row) for row in rows if row.url not in known]
    tables.write_rows(plan.before.root, TABLE, new, tables.columns_of(NumberRow))
    return rows


def _drawing(request: Common, edit: Edit) -> tuple[ModelSpec, CaptureSpec, ModelCard]:
    """How images are drawn: as the concept was captured, with what the request sets instead."""
    known, capture = edit.manifest["model"], None
    model = replace(request.model_spec, variant=known.get("variant"))
    if "combined" not in edit.manifest["prune"]:
        target = edit.manifest["prompt_sets"]["target"]
        profile = ActivationStore(request.store, edit.manifest["profile"], target).attributes()
        capture = TypeAdapter(CaptureSpec).validate_python(profile["capture"])
        model = replace(model, dtype=profile["dtype"])
    else:
        capture = capture_spec(request, load_catalog(request.catalog_url))
    given: dict[str, Any] = {
        "steps": request.steps,
        "guidance": request.guidance,
        "height": request.size,
        "width": request.size,
    }
    capture = replace(capture, window=None, **{name: value for name, value in given.items() if value is not None})
    card, capture, _, _ = check_model(model, replace(capture, kinds=_kinds(edit)))
    return model, capture, card


def _kinds(edit: Edit) -> tuple[str, ...]:
    return tuple(edit.manifest["prune"].get("kinds", ("ffn",)))


def _parts(request: EvaluateRequest) -> tuple[Prompts, ...]:
    if request.prompt_file is not None:
        asked = protocol(request.protocol)
        labels = () if request.label is None else (request.label,)
        options = {"prompt": asked.prompt, "seed": asked.seed, "labels": labels, "seeds": request.seeds,
                   "limit": request.limit}  # fmt: skip
        return (PromptFile.look(request.prompt_file, **options),)
    if request.protocol is not None:
        asked = protocol(request.protocol)
        raise ValueError(
            f"protocol {request.protocol} is over a file of yours: {asked.expects}; give it with --prompt-file"
        )
    concept = load_catalog(request.catalog_url)[request.concept]
    parts = tuple(EvaluationPart(request.catalog_url, concept.slug, part) for part in ("concept", "others"))
    found = tuple(part for part in parts if part.expectations())
    if not found:
        raise ValueError(
            f"catalog {request.catalog_url} has no evaluation prompts for {concept.slug}; give --prompt-file"
        )
    return found


def _metrics(request: EvaluateRequest) -> tuple[MetricSpec, ...]:
    """The metrics that are asked for, "name" or "name=folder"; without any those of the protocol, or the judge."""
    asked = request.metrics or list(protocol(request.protocol).metrics) or ["classifier"]
    specs = []
    for text in dict.fromkeys(asked):
        name, _, folder = text.partition("=")
        judge = request.judge_path if name == "classifier" and not folder else None
        path = Path(folder).expanduser() if folder else judge
        if path is not None and not path.is_dir():
            raise ValueError(f"metric {name}: there is no folder {path}; give one, as in {name}=path/to/folder")
        originals = None if request.originals is None else Path(request.originals).expanduser()
        specs.append(MetricSpec(name, path, originals, request.threshold))
        check_metric(specs[-1], request.model_spec)
    return tuple(specs)


def metric_words(text: str | None) -> list[str] | None:
    """The metrics of a command line's option."""
    found = words(text)
    return None if found is None else list(found)
