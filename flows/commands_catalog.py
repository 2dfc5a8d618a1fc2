"""The commands catalog list and catalog add: what is built in, and a concept of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows import options as o
from flows.answering import answer

File = Annotated[str, typer.Argument(metavar="FILE.toml", help="A TOML catalog of your own; a new one is begun.")]
Slug = Annotated[str, typer.Argument(help="The concept's slug: lower-case letters, digits, single dashes.")]
Kind = Annotated[
    str, typer.Option(help="A kind with a recipe, see `catalog list`, or any word for prompts of your own.")
]
Words = Annotated[
    str | None, typer.Option(help="What prompts call it, such as 'a golf ball'; fills the kind's recipe.")
]
Reference = Annotated[
    Path | None, typer.Option(help="Text file, a prompt a line: without the concept. In place of a recipe.")
]
Target = Annotated[Path | None, typer.Option(help="Text file, a prompt a line: the same with the concept.")]
Seed = Annotated[
    int | None, typer.Option(min=0, help="One seed for all prompts of these files. \\[default: 0, 1, 2 ... in order]")
]


def catalog_list(as_json: o.Json = False) -> None:
    """List the built-in catalogs: their kinds, prompts, settings and where these come from."""
    from flows import showing_catalogs
    from flows.catalog_files import builtin_kinds

    answer(builtin_kinds, as_json, showing_catalogs.print_kinds)


def catalog_add(
    file: File,
    slug: Slug,
    kind: Kind,
    words: Words = None,
    reference: Reference = None,
    target: Target = None,
    seed: Seed = None,
    as_json: o.Json = False,
) -> None:
    """Write a concept of your own into a catalog: by its name and a kind's recipe, or by two lists of prompts.

    conceptprune catalog add mine.toml lighthouse --kind object --words "a lighthouse", then
    conceptprune erase lighthouse --catalog mine.toml. The file is yours to read and change.
    """
    from flows import showing_catalogs
    from flows.catalog_files import add_concept

    answer(lambda: add_concept(file, slug, kind, words, reference, target, seed), as_json, showing_catalogs.print_added)
