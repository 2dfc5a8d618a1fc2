"""Tasks that write pages about edits: one self-contained HTML file each, and an index of many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from prefect import task
from prefect.cache_policies import NO_CACHE

from storage.edits import read_edit_at
from storage.names import sha256
from storage.places import Place
from storage.roots import place_at
from tasks.pages.page import IndexPage
from tasks.pages.rendering import render_edit, render_index
from tasks.pages.words import plural
from tasks.report_data import Sources, edit_page, index_row

INDEX = "index.html"


@task(name="write-report", cache_policy=NO_CACHE)
def write_report(sources: Sources, url: str, to: str, index: str | None = None) -> dict[str, Any]:
    """Write the page of an edit to a file, replacing what was there.

    Equal input gives equal bytes. Returns {"concept", "edit", "page", "bytes", "sha256", "images": pairs}. Raises
    ValueError if the file cannot be written, CorruptEdit or DamagedStore if what it is made of is damaged.
    """
    edit = read_edit_at(url)
    page = edit_page(sources, edit, index)
    written = _put(place_at(to), render_edit(page))
    return {"concept": edit.concept, "edit": edit.id, **written, "images": page.shown}


@task(name="write-index", cache_policy=NO_CACHE)
def write_index(
    sources: Sources, urls: Sequence[str], pages: Sequence[str], to: str, title: str, failed: Mapping[str, str]
) -> dict[str, Any]:
    """Write the index of edits into a folder, each with the name of its page beside it.

    `failed` are concepts without a page, and why. Returns {"page", "bytes", "sha256"}.
    """
    rows = [index_row(sources, read_edit_at(url), quote(page)) for url, page in zip(urls, pages, strict=True)]
    models = sorted({row.model for row in rows})
    of = f" of the model{'s' if len(models) > 1 else ''} {', '.join(models)}" if models else ""
    about = f"{plural(len(rows), 'concept')}{of}, each by its latest edit. A concept's name leads to its page."
    page_of = IndexPage(title, about, sorted(rows, key=lambda row: row.concept), dict(sorted(failed.items())))
    return _put(place_at(to) / INDEX, render_index(page_of))


def _put(place: Place, data: bytes) -> dict[str, Any]:
    try:
        place.put(data)
    except OSError as error:
        raise ValueError(
            f"{place} cannot be written: {error.strerror or error}; give another place with --to"
        ) from None
    return {"page": str(place), "bytes": len(data), "sha256": sha256(data)}
