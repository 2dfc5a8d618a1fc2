"""The command import: a single-file checkpoint becomes a model's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows import options as o
from flows.answering import answer

File = Annotated[Path, typer.Argument(metavar="FILE", help="A .safetensors checkpoint, as A1111 and ComfyUI use them.")]
To = Annotated[Path, typer.Option(help="The new folder, for --model of the other commands.")]
Config = Annotated[
    str,
    typer.Option(
        help="A diffusers folder or hub id of the same architecture, such as "
        "stable-diffusion-v1-5/stable-diffusion-v1-5: only its configs and tokenizers are read."
    ),
]


def import_model(file: File, to: To, config: Config, revision: o.Revision = None, as_json: o.Json = False) -> None:
    """Make a model's folder of a single-file checkpoint, in its own precision.

    conceptprune import my.safetensors --config path/to/stable-diffusion-v1-5 --to my-model. An edit goes back into a
    file with conceptprune publish CONCEPT --model my-model --form single-file --original my.safetensors.
    """
    from flows import importing, showing_published

    answer(lambda: importing.import_model(file, to, config, revision), as_json, showing_published.print_imported)
