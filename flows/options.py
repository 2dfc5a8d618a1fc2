"""The command line's options: the same name means the same in every command."""

from __future__ import annotations

from typing import Annotated

import typer

Concept = Annotated[str, typer.Argument(help="The concept's slug in the catalog, such as fox or twemoji.")]
Concepts = Annotated[list[str] | None, typer.Argument(help="The concepts' slugs, such as fox panda.")]
Store = Annotated[
    str | None,
    typer.Option(help="Directory or s3://bucket/prefix that keeps everything. \\[default: conceptprune-store]"),
]
CatalogFile = Annotated[
    str | None,
    typer.Option("--catalog", help="Path or URL of a TOML, CSV or Parquet file, or a built-in name. \\[default: demo]"),
]
Model = Annotated[str | None, typer.Option(help="A diffusers folder or a hub id. \\[default: the bundled model]")]
Revision = Annotated[str | None, typer.Option(help="For a hub id: the commit, all 40 hex digits.")]
Variant = Annotated[
    str | None, typer.Option(help="Of the weights' files, such as fp16. \\[default: the plain ones; see also --dtype]")
]
Judge = Annotated[
    str | None, typer.Option(help="Folder of an image classifier that judges. \\[default: the bundled one]")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Offload = Annotated[
    str | None,
    typer.Option(
        help="For a GPU with too little memory: model keeps on it the component that runs, group the layer (slower). "
        "\\[default: none]"
    ),
]
Slicing = Annotated[
    bool | None,
    typer.Option(
        "--slicing/--no-slicing", help="Attention and decoder a slice at a time: less memory, slower. \\[default: off]"
    ),
]
Dtype = Annotated[str, typer.Option(help="float32, float16 or bfloat16.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Prompts drawn at once; more need more memory. \\[default: 10]")]
Steps = Annotated[int | None, typer.Option(help="Inference steps. \\[default: the catalog's]")]
Window = Annotated[int | None, typer.Option(help="First denoiser calls to capture. \\[default: the catalog's, or all]")]
Guidance = Annotated[float | None, typer.Option(help="Classifier-free guidance scale. \\[default: the catalog's]")]
Size = Annotated[int | None, typer.Option(help="Height and width in pixels. \\[default: the model's]")]
Sparsity = Annotated[str | None, typer.Option(help="k, the share of each row that are candidates, e.g. 0.02 or 2%.")]
THat = Annotated[int | None, typer.Option("--t-hat", help="How many first steps vote.")]
VoteShare = Annotated[float | None, typer.Option(help="Share of them that must agree; 0 = any one (the paper).")]
Branch = Annotated[str | None, typer.Option(help="Guidance halves whose energies count: both, cond or uncond.")]
Kinds = Annotated[
    str | None,
    typer.Option(help="Site kinds, by commas: ffn, ffn_in, attn_k, attn_v, text. \\[default: the catalog's, or ffn]"),
]
Include = Annotated[
    str | None,
    typer.Option(help="Prune only sites so named, patterns by commas, such as 'unet.up_blocks*'. \\[default: all]"),
]
Exclude = Annotated[str | None, typer.Option(help="Leave sites so named alone, patterns by commas.")]
Padding = Annotated[
    bool | None,
    typer.Option("--padding/--no-padding", help="Whether padding tokens count in text encoders. \\[default: they do]"),
]
Prompts = Annotated[
    str | None, typer.Option(help="Slots of both prompt sets that count, from 0, such as 0-9,15. \\[default: all]")
]
Evaluate = Annotated[bool, typer.Option("--evaluate/--no-evaluate", help="Draw and judge images before and after.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout; all else goes to stderr.")]
NoPrefect = Annotated[bool, typer.Option("--no-prefect", help="Run the same steps as plain calls, without Prefect.")]
Sparsities = Annotated[
    str | None, typer.Option("--sparsity", help="k, by commas, such as 0.01,0.02,5%. \\[default: the latest edit's]")
]
THats = Annotated[
    str | None,
    typer.Option("--t-hat", help="How many first steps vote, by commas, such as 5,10. \\[default: the latest edit's]"),
]
VoteShares = Annotated[
    str | None,
    typer.Option(
        help="Shares of them that must agree, by commas, such as 0,0.5; 0 = any one. \\[default: the latest edit's]"
    ),
]
Images = Annotated[
    int | None,
    typer.Option(help="How many points to draw and judge, spread over the densities. \\[default: 0, densities alone]"),
]
Combined = Annotated[str, typer.Argument(metavar="NAME", help="The new edit's name, in place of a concept's slug.")]
ErasedParts = Annotated[
    str, typer.Option("--erase", help="What is erased, by commas: a slug for its latest edit, or slug@edit.")
]
ProtectedParts = Annotated[
    str | None, typer.Option("--protect", help="What keeps the weights that it needs, by commas, likewise.")
]
Plots = Annotated[
    str | None, typer.Option(metavar="DIR", help="Draw plots into this directory or URL; takes up to two minutes.")
]
Only = Annotated[
    str | None, typer.Option("--concepts", help="Only these slugs, by commas. \\[default: all of the catalog]")
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Share the capture out to as many runs of the deployment that CONCEPTPRUNE_CAPTURE_DEPLOYMENT names. "
        "\\[default: 0, this run captures]"
    ),
]
EveryConcept = Annotated[bool, typer.Option("--all", help="Every concept that the store knows.")]
CatalogArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="Path or URL of a TOML, CSV or Parquet file, or a built-in name.")
]
