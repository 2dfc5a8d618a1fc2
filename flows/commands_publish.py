"""The command publish: an edit in a form that others use."""

from __future__ import annotations

from typing import Annotated

import typer

from flows import options as o
from flows.answering import answer, asked

Form = Annotated[
    str,
    typer.Option(
        help="mask: the bits, a few MB; delta: the changed tensors; diffusers: a whole pipeline folder; single-file: "
        "one .safetensors file as A1111 and ComfyUI open it."
    ),
]
Original = Annotated[
    str | None,
    typer.Option(
        help="For single-file: the checkpoint that the model was imported from; all that the edit does not prune stays "
        "as it is, byte for byte. \\[default: written from the model's folder, for Stable Diffusion 1, 2 and XL]"
    ),
]
To = Annotated[str, typer.Option(help="Where to: an empty directory, or s3://bucket/prefix.")]
EditId = Annotated[str | None, typer.Option("--edit", help="The edit's digest. \\[default: the concept's latest]")]


def publish(
    concept: o.Concept,
    form: Form,
    to: To,
    edit: EditId = None,
    original: Original = None,
    store: o.Store = None,
    model: o.Model = None,
    revision: o.Revision = None,
    as_json: o.Json = False,
    no_prefect: o.NoPrefect = False,
) -> None:
    """Publish an edit with its manifest: the mask, the changed tensors, a whole pipeline folder or a single file.

    conceptprune publish fox --form diffusers --to fox-free. Open that folder with DiffusionPipeline.from_pretrained;
    every byte that the edit does not change is the base's.
    """
    places = dict(store=store, model=model, revision=revision)
    options = dict(concept=concept, form=form, to=to, edit=edit, original=original, **places)
    from flows import erasing, showing_published
    from flows.publish import PublishRequest

    answer(
        lambda: erasing.publish(asked(PublishRequest, options), no_prefect), as_json, showing_published.print_published
    )
