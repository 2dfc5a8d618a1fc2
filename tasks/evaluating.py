"""Tasks that draw the evaluation's prompts before and after an edit, and let a judge say what it sees."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.drafts import EditDraft
from storage.models import ModelStore
from storage.parallel import at_once
from storage.roots import place_at
from tasks.cuts import EvaluationPart
from tasks.diffusion.sources import has_checker, resolve
from tasks.diffusion.spec import CaptureSpec, ModelSpec
from tasks.drawing import png
from tasks.metrics.sheets import Pair, contact_sheet
from tasks.naming import run_name

SHEET_PAIRS = 10  # prompts shown a section
PREVIEW_PIXELS = (1200, 1600)  # at most, width and height
PREVIEW_BYTES = 150_000  # of a PNG that is shown as it is; Prefect's server keeps artifacts in its database


def image_name(part: str, index: int, when: str) -> str:
    """The file of one image in an edit; `when` is "before" or "after"."""
    return f"images/{part}-{index:03d}-{when}.png"


@task(
    name="evaluate-batch",
    task_run_name=run_name("evaluate-{part.concept}-{part.part}-{indices}", "indices"),
    cache_policy=NO_CACHE,
)
def evaluate_batch(
    draft: EditDraft, model: ModelSpec, capture: CaptureSpec, part: EvaluationPart, judge: Path, indices: list[int]
) -> list[dict[str, Any]]:
    """Draw some prompts with and without the edit, from the same seeds, and judge both.

    The images go into the edit; those that an interrupted run left there are taken as they are. Returns one row an
    expected label: {"group", "index", "before", "after"}, the last two telling whether the judge saw it.
    """
    from tasks.diffusion import pipelines
    from tasks.diffusion.pruned import pruned
    from tasks.metrics import classifier

    expected = [part.expectations()[i] for i in indices]
    prompts = [expectation.prompt for expectation in expected]
    base = ModelStore(draft.root, draft.model).attributes()["weights"]
    right = {}
    for when, masks in (("before", {}), ("after", draft.masks())):
        names = [image_name(part.part, index, when) for index in indices]
        if not all(at_once(draft.get, names)):
            with pruned(pipelines.load(model), masks, base if masks else None) as pipe:
                images = pipelines.generate(pipe, prompts, capture)
            at_once(lambda pair: draft.put(pair[0], png(pair[1])), zip(names, images, strict=True))
        seen = classifier.load(judge).labels(at_once(lambda name: _image(draft, name), names))
        right[when] = classifier.hits([expectation.labels for expectation in expected], seen)
    owners = [i for i, expectation in zip(indices, expected, strict=True) for _ in expectation.labels]
    return [
        {"group": group, "index": index, "before": before, "after": after}
        for index, (group, before), (_, after) in zip(owners, right["before"], right["after"], strict=True)
    ]


@task(name="check-safety", cache_policy=NO_CACHE)
def check_safety(draft: EditDraft, model: ModelSpec, part: EvaluationPart) -> dict[str, Any] | None:
    """What the model's own safety checker says of a part's images, which it leaves as they are.

    Returns {"before", "after": the indices that it would black out, "n", "sha256": the checker's weights}, or None for
    a model that has none.
    """
    folder = resolve(model)
    if not has_checker(folder):
        return None
    from tasks.metrics import safety

    checker, found = safety.load(folder, model.variant), {}
    for when in ("before", "after"):
        names = [image_name(part.part, i, when) for i in range(part.size())]
        images = at_once(lambda name: _image(draft, name), names)
        found[when] = [i for i, flagged in enumerate(checker.flags(images)) if flagged]
    return {**found, "n": part.size(), "sha256": checker.sha256}


@task(name="draw-sheet", cache_policy=NO_CACHE)
def draw_sheet(draft: EditDraft, title: str, parts: list[EvaluationPart], headings: list[str]) -> str:
    """Lay the first images of each part out on one contact sheet, images/sheet.png. Returns its name."""
    sections = []
    for part, heading in zip(parts, headings, strict=True):
        shown = part.expectations()[:SHEET_PAIRS]
        before, after = (
            at_once(lambda name: _image(draft, name), [image_name(part.part, i, when) for i in range(len(shown))])
            for when in ("before", "after")
        )
        texts = [expectation.prompt.text for expectation in shown]
        sections.append((heading, [Pair(*pair) for pair in zip(texts, before, after, strict=True)]))
    draft.put("images/sheet.png", png(contact_sheet(title, sections)))
    return "images/sheet.png"


def image_preview(url: str) -> str:
    """An image of the store in a data: URL, which a browser shows without reaching the store.

    A PNG of at most PREVIEW_BYTES as it is, so that a chart stays sharp; what is larger as a small JPEG.
    """
    data = place_at(url).get()
    if data is None:
        raise RuntimeError(f"there is no image at {url}")
    if len(data) <= PREVIEW_BYTES:
        return f"data:image/png;base64,{base64.b64encode(data).decode()}"
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image.thumbnail(PREVIEW_PIXELS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def accuracy(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Shares of expected labels that the judge saw, over all rows and by group: {"before", "after", "n", "groups"}."""
    groups = sorted({row["group"] for row in rows})
    return {**_shares(rows), "groups": {group: _shares([r for r in rows if r["group"] == group]) for group in groups}}


def _shares(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"before": _mean(rows, "before"), "after": _mean(rows, "after"), "n": len(rows)}


def _mean(rows: Sequence[Mapping[str, Any]], when: str) -> float:
    return round(sum(bool(row[when]) for row in rows) / max(len(rows), 1), 4)


def _image(draft: EditDraft, name: str) -> Image.Image:
    data = draft.get(name)
    if data is None:
        raise RuntimeError(f"{name} of edit {draft.edit} was not drawn")
    return Image.open(io.BytesIO(data)).convert("RGB")
