"""The command evaluate: what an edit does to images, by any metric."""

from __future__ import annotations

from typing import Annotated

import typer

from flows import options as o
from flows.answering import answer, asked

EditId = Annotated[str | None, typer.Option("--edit", help="The edit's digest. \\[default: the concept's latest]")]
Metrics = Annotated[
    str | None,
    typer.Option(
        help="By commas: classifier, nudenet, safety, or with a model's folder clip-similarity=DIR, clip-accuracy=DIR, "
        "fid=DIR, kid=DIR, cmmd=DIR, change=DIR, copies=DIR. \\[default: the protocol's, or classifier]"
    ),
]
PromptFile = Annotated[
    str | None,
    typer.Option(help="Prompts: .txt with one a line, .csv or .parquet. \\[default: the catalog's of the concept]"),
]
Protocol = Annotated[
    str | None,
    typer.Option(
        help="What that file is: artists, imagenette, i2p, mma-diffusion, ring-a-bell, coco, professions, memorised."
    ),
]
Label = Annotated[str | None, typer.Option(help="What a judge should see in the file's images, such as object:fox.")]
Seeds = Annotated[int | None, typer.Option(min=1, help="Images a prompt of the file. \\[default: 1]")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the file's first prompts.")]
Originals = Annotated[str | None, typer.Option(help="Folder of pictures that images may be copies of.")]
Threshold = Annotated[float | None, typer.Option(help="Of nudenet and copies. \\[default: the metric's own]")]


def evaluate(
    concept: o.Concept,
    metrics: Metrics = None,
    edit: EditId = None,
    prompt_file: PromptFile = None,
    protocol: Protocol = None,
    label: Label = None,
    seeds: Seeds = None,
    limit: Limit = None,
    originals: Originals = None,
    threshold: Threshold = None,
    store: o.Store = None,
    catalog: o.CatalogFile = None,
    model: o.Model = None,
    revision: o.Revision = None,
    judge: o.Judge = None,
    device: o.Device = None,
    offload: o.Offload = None,
    slicing: o.Slicing = None,
    batch: o.Batch = None,
    steps: o.Steps = None,
    guidance: o.Guidance = None,
    size: o.Size = None,
    as_json: o.Json = False,
    no_prefect: o.NoPrefect = False,
) -> None:
    """Measure an edit: prompts drawn before and after it, from the same seeds, each number with its 95 % interval.

    conceptprune evaluate fox --metrics classifier,nudenet. Images and numbers are kept by all that made them: what is
    there is not drawn or measured again.
    """
    from flows.evaluate import EvaluateRequest, metric_words

    options = dict(
        concept=concept, metrics=metric_words(metrics), edit=edit, prompt_file=prompt_file, protocol=protocol,
        label=label, seeds=seeds, limit=limit, originals=originals, threshold=threshold, store=store, catalog=catalog,
        model=model, revision=revision, judge=judge, device=device, offload=offload, slicing=slicing, batch=batch,
        steps=steps, guidance=guidance, size=size,
    )  # fmt: skip
    from flows import erasing, showing_evaluation

    answer(
        lambda: erasing.evaluate(asked(EvaluateRequest, options), no_prefect),
        as_json,
        showing_evaluation.print_evaluation,
    )
