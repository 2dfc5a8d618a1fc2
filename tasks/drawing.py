"""Tasks that draw prompts with or without an edit, into a store whose address says all that made the images."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image
from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.edits import read_edit_at
from storage.images import ImageStore
from storage.names import digest
from storage.parallel import at_once
from tasks.concepts.concept import Expectation
from tasks.diffusion.spec import CaptureSpec, ModelSpec
from tasks.naming import run_name


class Prompts(Protocol):
    """Where prompts stand: tasks take this, never the prompts."""

    @property
    def part(self) -> str:
        """What the prompts are of, such as "concept" or "others"."""

    def expectations(self) -> Sequence[Expectation]:
        """The prompts, with the labels that their images should get."""


@dataclass(frozen=True)
class Draw:
    """How images are drawn: by which model, with which edit or none."""

    root: str
    model: ModelSpec
    capture: CaptureSpec  # the window is not used
    about: Mapping[str, Any]  # all that makes the images, besides the prompts
    edit: str | None = None  # its URL
    weights: str | None = None  # the fingerprint of the weights that the edit is for

    @property
    def digest(self) -> str:
        """The address of its images."""
        return digest(self.about)

    def store(self) -> ImageStore:
        """Where its images are."""
        return ImageStore.of(self.root, self.about)

    def images(self, prompts: Sequence[Expectation]) -> list[Image.Image]:
        """The images of prompts. Raises FileNotFoundError for one that was not drawn."""
        store = self.store()
        data = at_once(lambda one: store.get(one.prompt.name), prompts)
        return [Image.open(io.BytesIO(png)).convert("RGB") for png in data]


@task(name="draw-batch", task_run_name=run_name("draw-{part.part}-{slots}", "slots"), cache_policy=NO_CACHE, retries=1)
def draw_batch(draw: Draw, part: Prompts, slots: list[int]) -> int:
    """Draw some of the prompts, those that have no image yet. Returns how many were drawn.

    Raises ValueError if the edit is for another model.
    """
    store, expected = draw.store(), part.expectations()
    prompts = {expected[slot].prompt.name: expected[slot].prompt for slot in slots}
    missing = [prompts[name] for name in store.missing(list(prompts))]
    if not missing:
        return 0
    from tasks.diffusion import pipelines
    from tasks.diffusion.pruned import pruned

    masks = {} if draw.edit is None else read_edit_at(draw.edit).masks()
    with pruned(pipelines.load(draw.model), masks, draw.weights if masks else None) as pipe:
        images = pipelines.generate(pipe, missing, draw.capture)
    at_once(lambda pair: store.put(pair[0].name, png(pair[1])), zip(missing, images, strict=True))
    return len(missing)


def png(image: Image.Image) -> bytes:
    """An image's PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
