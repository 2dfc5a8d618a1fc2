"""Edits published in forms that others use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect import flow
from pydantic import BaseModel, Field

from flows.artifacts import progress_artifacts
from flows.config import DEMO, FORM, Common
from flows.steps import Steps, tracked
from storage.edits import Edit
from storage.listing import find_edit
from storage.roots import Root
from tasks.diffusion.spec import ModelSpec
from tasks.publishing import publish_edit


class PublishRequest(BaseModel):
    """An edit, the form to publish it in, and where to."""

    model_config = FORM

    concept: str = Field(min_length=1, max_length=200, description="its slug, such as fox")
    form: Literal["mask", "delta", "diffusers", "single-file"] = Field(
        description="mask: the bits; delta: the changed tensors; diffusers: a whole pipeline folder; "
        "single-file: one .safetensors file with the key names of original checkpoints"
    )
    original: str | None = Field(
        default=None, description="for single-file: the checkpoint that the model was imported from, to keep its bytes"
    )
    to: str = Field(min_length=1, description="directory or s3://bucket/prefix, empty")
    edit: str = Field(default="latest", description="the edit's digest, or latest")
    store: str = Field(default="conceptprune-store", min_length=1, description="directory or s3://bucket/prefix")
    model: str = Field(default=DEMO, min_length=1, description="the base: a diffusers folder or hub id")
    revision: str | None = Field(default=None, description="for a hub id: the commit, 40 hex digits")


@dataclass(frozen=True)
class Publication:
    """What is published where."""

    edit: Edit
    form: str
    to: str
    model: ModelSpec
    original: str | None


@flow(name="publish", flow_run_name="publish-{request.concept}-{request.form}")
def publish(request: PublishRequest) -> dict[str, Any]:
    """Publish an edit: its mask, its changed tensors, a whole pipeline folder or a single file with it."""
    with progress_artifacts():
        return publish_all(plan_publication(request), Steps(tracked))


def plan_publication(request: PublishRequest) -> Publication:
    """The edit, found. Raises ValueError in one sentence if there is none, or the place cannot be written."""
    Root(request.to).check()
    if request.original is not None and request.form != "single-file":
        raise ValueError(f"original is for the form single-file, not {request.form}; leave it out")
    if request.original is not None and not Path(request.original).is_file():
        raise ValueError(f"there is no file {request.original}; give the checkpoint that the model was imported from")
    found = find_edit(request.store, request.concept, request.edit)
    base = Common(model=request.model, revision=request.revision).model_spec
    return Publication(found, request.form, Root(request.to).url, base, request.original)


def publish_all(plan: Publication, steps: Steps) -> dict[str, Any]:
    """The flow's body: what was published, as JSON values."""
    files = steps.call(publish_edit, str(plan.edit.path), plan.form, plan.to, plan.model, plan.original)
    return {"concept": plan.edit.concept, "edit": plan.edit.id, "form": plan.form, "to": plan.to, "files": files}
