"""Tasks that measure what an edit does to images, by any metric; a number that is there is not measured again.

evaluations/<digest>.json holds one metric over one set of prompts: what it is of, how the images were drawn, before and
after. Its digest is of all of that, so a number is never taken for another's. The prompts themselves are kept once for
all that is measured over them, by storage.prompt_lists.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.names import canonical_json, digest
from storage.prompt_lists import write_prompts
from storage.roots import Root
from tasks.catalogs import load_catalog
from tasks.concepts.concept import Expectation
from tasks.diffusion.sources import has_checker, resolve
from tasks.diffusion.spec import ModelSpec
from tasks.drawing import Draw, Prompts

FORMAT = "conceptprune-measurement"
FOLDERS = {  # metric: what its folder holds; None = it needs none
    "classifier": "an image classifier",
    "clip-similarity": "a CLIP model",
    "clip-accuracy": "a CLIP model",
    "nudenet": None,
    "safety": None,
    "copies": "a feature extractor, such as SSCD",
    "fid": "a feature extractor",
    "kid": "a feature extractor",
    "cmmd": "a feature extractor",
    "change": "a feature extractor",
}
FLAGGING = ("nudenet", "safety")  # metrics whose numbers also say which images they flag, by place among the prompts


@dataclass(frozen=True)
class MetricSpec:
    """Which metric, and the folder of the model that it judges by."""

    name: str
    folder: Path | None = None
    originals: Path | None = None  # of "copies": pictures
    threshold: float | None = None  # of "nudenet" and "copies"; None = the metric's own

    def __post_init__(self) -> None:
        if self.name not in FOLDERS:
            raise ValueError(f"metric {self.name!r} is unknown; choose of {', '.join(FOLDERS)}")
        if (wanted := FOLDERS[self.name]) is not None and self.folder is None:
            raise ValueError(f"metric {self.name} needs {wanted}; give its folder, as in {self.name}=path/to/folder")
        if self.name == "copies" and self.originals is None:
            raise ValueError("metric copies compares with originals; give their folder with --originals")


def check_metric(spec: MetricSpec, model: ModelSpec) -> None:
    """Raises ValueError in one sentence if a metric cannot be taken, before anything is drawn for it."""
    if spec.folder is not None and not (spec.folder / "config.json").is_file():
        raise ValueError(
            f"metric {spec.name}: {spec.folder} is no model's folder; expected config.json and safetensors"
        )
    if spec.name == "safety" and not has_checker(resolve(model)):
        raise ValueError(f"{model.path} has no safety checker to ask; leave the metric safety out, or try nudenet")
    if spec.name == "nudenet" and find_spec("nudenet") is None:
        raise ValueError("NudeNet is not installed; pip install 'conceptprune[metrics]'")


@task(name="measure", task_run_name="measure-{spec.name}-{part.part}", cache_policy=NO_CACHE)
def measure(spec: MetricSpec, catalog: str, before: Draw, after: Draw, part: Prompts) -> dict[str, Any]:
    """Measure the images of a set of prompts before and after an edit; they must be drawn.

    Returns the measurement and where it is: {"url", "metric", "part", "about", "prompts", "draws", "numbers"}. Raises
    ValueError if the metric's model is missing.
    """
    expected = part.expectations()
    measured, about = _metric(spec, before, catalog, expected)
    said = [[one.prompt.text, one.prompt.seed, one.labels] for one in expected]
    document = {
        "format": FORMAT, "metric": spec.name, "part": part.part, "about": dict(about),
        "prompts": {"sha256": write_prompts(before.root, said), "n": len(expected)},
        "draws": {"before": dict(before.about), "after": dict(after.about)},
    }  # fmt: skip
    place = Root(before.root).path("evaluations") / f"{digest(document)}.json"
    if (data := place.get()) is None:
        data = canonical_json({**document, "numbers": measured(before, after, expected)})
        place.put_new(data)
    return {**json.loads(data), "url": str(place)}


Measure = Callable[[Draw, Draw, Sequence[Expectation]], Mapping[str, Any]]


def _metric(
    spec: MetricSpec, draw: Draw, catalog: str, expected: Sequence[Expectation]
) -> tuple[Measure, Mapping[str, Any]]:
    """What takes a metric's numbers, and what they depend on. Each imports its own libraries alone."""
    folder = spec.folder or Path()
    if spec.name in ("fid", "kid", "cmmd"):
        from tasks.metrics.distances import Distance

        distance = Distance(spec.name, folder)
        return lambda one, other, asked: _set(distance, one, other, asked), distance.about
    if spec.name == "change":
        from tasks.metrics.pairs import Change

        change = Change(folder)
        return lambda one, other, asked: _pairs(change, one, other, asked), change.about
    judge = _judge(spec, draw, catalog, expected, folder)
    return lambda one, other, asked: _images(judge, one, other, asked), judge.about


def _judge(spec: MetricSpec, draw: Draw, catalog: str, expected: Sequence[Expectation], folder: Path) -> Any:
    """A metric of single images."""
    if spec.name == "classifier":
        from tasks.metrics import classifier

        return classifier.load(folder)
    if spec.name == "safety":
        from tasks.metrics import safety

        return safety.load(resolve(draw.model), draw.model.variant)
    if spec.name == "nudenet":
        from tasks.metrics import nudity

        return nudity.Nudity(spec.threshold or nudity.THRESHOLD)
    if spec.name == "copies":
        from tasks.metrics import copies

        return copies.Copies(folder, spec.originals or Path(), spec.threshold or copies.THRESHOLD)
    from tasks.metrics import clip

    return (
        clip.Similarity(folder) if spec.name == "clip-similarity" else clip.Accuracy(folder, _words(catalog, expected))
    )


def _images(judge: Any, before: Draw, after: Draw, expected: Sequence[Expectation]) -> Mapping[str, Any]:
    from tasks.metrics.intervals import summarise
    from tasks.metrics.metric import Shot

    shots = [
        [Shot(one.prompt.text, one.labels, image) for one, image in zip(expected, draw.images(expected), strict=True)]
        for draw in (before, after)
    ]
    judged = {"before": judge.judge(shots[0]), "after": judge.judge(shots[1])}
    found = summarise(judged["before"], judged["after"])
    if judge.about["metric"] not in FLAGGING:
        return found
    return {**found, "flagged": {when: [one.index for one in ones if one.value] for when, ones in judged.items()}}


def _set(metric: Any, before: Draw, after: Draw, expected: Sequence[Expectation]) -> Mapping[str, Any]:
    from tasks.metrics.intervals import of_sets

    one, other = (metric.features(draw.images(expected)) for draw in (before, after))
    return {"distance": of_sets(one, other, metric.distance), "images": len(expected)}


def _pairs(metric: Any, before: Draw, after: Draw, expected: Sequence[Expectation]) -> Mapping[str, Any]:
    from tasks.metrics.intervals import of_pairs

    values = metric.compare(before.images(expected), after.images(expected))
    return {"distance": of_pairs(values), "images": len(expected)}


def _words(catalog: str, expected: Sequence[Expectation]) -> dict[str, str]:
    """The words of every label that could be meant: those of the kinds that the prompts' labels are of."""
    lists = load_catalog(catalog).file.words
    kinds = {label.partition(":")[0] for one in expected for label in one.labels}
    return {f"{kind}:{slug}": words for kind in sorted(kinds & set(lists)) for slug, words in lists[kind].items()}
