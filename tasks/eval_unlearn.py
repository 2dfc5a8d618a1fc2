"""The technique "conceptprune" of the benchmark eval-unlearn: its prompts, drawn with one of our edits in place.

    {"technique": {"name": "conceptprune",
                   "config": {"erase_concept": "fox", "store": "conceptprune-store", "model": "path/to/the/base"}}, ...}

The benchmark finds the class by the entry point in pyproject.toml, makes one with the config's keys, and calls
`generate` once a batch. That is its whole interface, so nothing here imports it; docs/eval-unlearn.md has more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from storage.edits import Edit, read_edit_at
from storage.listing import find_edit
from tasks.concepts.problems import explain
from tasks.diffusion.pipelines import load
from tasks.diffusion.pruned import check_base, pruned
from tasks.diffusion.spec import ModelSpec


class Config(BaseModel):
    """The keys of the technique's config: which edit, on which base model, drawn how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    erase_concept: str = Field(min_length=1)  # what the benchmark calls the concept, in its reports and its checks
    model: str = Field(min_length=1)  # the base: a diffusers folder or a hub id
    revision: str | None = None  # for a hub id: the commit, 40 hex digits
    url: str | None = None  # the edit's folder or URL, as `conceptprune show` prints it; or else
    store: str | None = None  # the directory or s3://bucket/prefix that holds the edit
    concept: str | None = None  # the concept's slug, where that is not erase_concept
    edit: str = "latest"  # the edit's digest in the store
    dtype: str = "float32"  # of the weights: the one that the edit was made in
    variant: str | None = None  # of the weights' files, such as fp16
    device: str | None = None  # cpu, cuda, cuda:1 or mps; None = the best that is here
    batch: int = Field(default=1, ge=1)  # prompts drawn at once
    seed: int | None = Field(default=None, ge=0)  # where the benchmark gives none: its command line never does
    num_inference_steps: int = Field(default=50, ge=1)  # this and the next as the benchmark's own techniques have them
    guidance_scale: float = Field(default=7.5, ge=0)
    size: int | None = Field(default=None, ge=8, multiple_of=8)  # height and width, px; None = the model's own

    @model_validator(mode="after")
    def _one_way_to_the_edit(self) -> Self:
        if (self.url is None) == (self.store is None):
            raise ValueError("give either url, the edit's folder, or store, where the concept's edits are")
        if self.url is not None and self.edit != "latest":
            raise ValueError("edit names one of a store's edits, and url is one edit; leave one of them out")
        return self

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> Self:
        """The config that a benchmark's file gives. Raises ValueError in one sentence."""
        try:
            return cls(**options)
        except ValidationError as error:
            _, sentence = next(explain(error, cls.model_fields))
            raise ValueError(f"conceptprune's config: {sentence}") from None

    @property
    def model_spec(self) -> ModelSpec:
        """The base model. Raises ValueError where a value is unknown."""
        return ModelSpec(
            self.model, revision=self.revision, dtype=self.dtype, device=self.device or "auto", variant=self.variant
        )

    def find(self) -> Edit:
        """The edit. Raises ValueError if there is none, or it is of another concept than the reports would say."""
        slug = self.concept or self.erase_concept
        if self.url is None:
            assert self.store is not None  # one of the two was given
            return find_edit(self.store, slug, self.edit)
        edit = read_edit_at(self.url)
        if edit.concept != slug:
            raise ValueError(f"the edit at {self.url} is of {edit.concept}, not of {slug}; set concept if it is meant")
        return edit


class ConceptPruneTechnique:
    """A base model that is patched while it draws, and only then: the process may use it for other edits too.

    Raises ValueError in one sentence for a wrong config, for an edit that is missing or damaged, and for a base model
    that the edit was not made for.
    """

    def __init__(self, **options: Any) -> None:
        self.config = Config.read(options)
        spec, edit = self.config.model_spec, self.config.find()
        self._masks = edit.masks()
        self._pipe = load(spec)
        check_base(self._pipe, edit.manifest["model"]["weights"], {name.partition(".")[0] for name in self._masks})

    def generate(
        self,
        prompts: Sequence[str],
        seed: int | None = None,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
    ) -> list[Image.Image]:
        """One image a prompt, in order; what is None is the config's.

        The first prompt of a call is drawn from `seed`, the second from `seed` + 1 and so on, as the benchmark's own
        techniques do; without a seed, from torch's global generator. A prompt that is too long is cut, as theirs are.
        """
        asked = {"seed": seed, "num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
        drawn = self.config.model_copy(update={name: value for name, value in asked.items() if value is not None})
        images: list[Image.Image] = []
        with pruned(self._pipe, self._masks) as pipe:
            for start in range(0, len(prompts), drawn.batch):
                some = list(prompts[start : start + drawn.batch])
                seeds = None if drawn.seed is None else range(drawn.seed + start, drawn.seed + start + len(some))
                output = pipe(
                    prompt=some,
                    generator=_generators(seeds, pipe.device),
                    num_inference_steps=drawn.num_inference_steps,
                    guidance_scale=drawn.guidance_scale,
                    **({} if drawn.size is None else {"height": drawn.size, "width": drawn.size}),
                )
                images += output.images
        return images


def _generators(seeds: Sequence[int] | None, device: torch.device) -> list[torch.Generator] | None:
    """A generator a prompt, on the pipeline's device as the benchmark's own techniques make them."""
    return None if seeds is None else [torch.Generator(device).manual_seed(seed) for seed in seeds]
