"""The command report: pages about edits that anyone can open."""

from __future__ import annotations

from typing import Annotated

import typer

from flows import options as o
from flows.answering import answer, asked

Concept = Annotated[
    str | None, typer.Argument(help="The concept's slug, such as fox. \\[default: an index of the catalog's concepts]")
]
To = Annotated[
    str, typer.Option(help="Where to: a file such as fox.html; for an index a directory, or s3://bucket/prefix.")
]
EditId = Annotated[str | None, typer.Option("--edit", help="The edit's digest. \\[default: the concept's latest]")]
Every = Annotated[bool, typer.Option("--all", help="An index of every concept in the store.")]
Catalog = Annotated[
    str | None,
    typer.Option(
        "--catalog",
        help="Which concepts an index has, and the words of prompts that the store lacks: a file, a URL or a built-in "
        "name. \\[default: demo]",
    ),
]
Images = Annotated[
    int | None, typer.Option(min=1, help="Pairs of images of each set of prompts at most. \\[default: 24]")
]


def report(
    concept: Concept = None,
    *,
    to: To,
    every: Every = False,
    edit: EditId = None,
    images: Images = None,
    store: o.Store = None,
    catalog: Catalog = None,
    as_json: o.Json = False,
    no_prefect: o.NoPrefect = False,
) -> None:
    """Write a page about an edit: one HTML file with images, numbers and provenance, that fetches nothing.

    conceptprune report fox --to fox.html. Without a concept: an index of the catalog's concepts, or with --all of the
    store's, and a page of each beside it. It says what the store knows; conceptprune evaluate and sweep add to that.
    """
    options = dict(concept=concept, to=to, every=every, edit=edit, images=images, store=store, catalog=catalog)
    from flows import erasing, showing_report
    from flows.report import ReportRequest

    def work() -> object:
        if concept is None and not every and catalog is None:
            raise ValueError("report of what? Give a concept such as fox, a --catalog for an index, or --all")
        return erasing.report(asked(ReportRequest, options), no_prefect)

    answer(work, as_json, showing_report.print_report)
