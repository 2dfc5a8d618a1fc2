"""Pages about edits that anyone can open: one self-contained HTML file of a concept, or an index with one of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from prefect import flow
from pydantic import BaseModel, Field

from flows.artifacts import progress_artifacts, publish_report
from flows.config import DEMO, FORM, Common
from flows.steps import Steps, tracked
from storage.edits import CorruptEdit, Edit
from storage.listing import find_edit, latest_edit, list_concepts
from storage.names import escape
from storage.roots import Root, place_at
from storage.zarrs import DamagedStore
from tasks.catalogs import load_catalog
from tasks.report_data import Sources
from tasks.reporting import INDEX, write_index, write_report

SUFFIX = ".html"


class ReportRequest(BaseModel):
    """An edit and its page, or all concepts and a folder of pages."""

    model_config = FORM

    concept: str | None = Field(
        default=None, min_length=1, max_length=200, description="its slug, such as fox; none: an index of concepts"
    )
    to: str = Field(min_length=1, description="file of one page, .html; directory or s3://bucket/prefix of an index")
    edit: str = Field(default="latest", description="the edit's digest, or latest")
    every: bool = Field(default=False, description="an index of every concept in the store, not the catalog's alone")
    store: str = Field(default="conceptprune-store", min_length=1, description="directory or s3://bucket/prefix")
    catalog: str = Field(
        default=DEMO, min_length=1, description="prompts' words that the store lacks; which concepts an index has"
    )
    images: int = Field(default=24, ge=1, le=500, description="pairs of images of each set of prompts at most")

    @property
    def name(self) -> str:
        """What it is of, in the run's name."""
        return self.concept or "all"

    @property
    def sources(self) -> Sources:
        """What pages are made from. Raises ValueError if the catalog cannot be read."""
        url = Common(catalog=self.catalog).catalog_url
        load_catalog(url)
        return Sources(Root(self.store).url, url, self.images)


@dataclass(frozen=True)
class ReportPlan:
    """Pages to be written."""

    sources: Sources
    to: str
    edits: Sequence[Edit]
    index: bool
    title: str = ""
    failed: Mapping[str, str] = field(default_factory=dict)  # concepts whose edit is damaged: why


@dataclass(frozen=True)
class ReportOutcome:
    """What was written, for people and for JSON."""

    store: str
    pages: Sequence[Mapping[str, Any]]  # concept, edit, page, bytes, sha256, images
    index: Mapping[str, Any] | None  # page, bytes, sha256
    failed: Mapping[str, str]  # concept: why it has no page

    def as_json(self) -> dict[str, Any]:
        """The command line's JSON document."""
        return asdict(self)


@flow(name="report", flow_run_name="report-{request.name}")
def report(request: ReportRequest) -> dict[str, Any]:
    """Write the page of an edit, or an index of concepts with a page each."""
    with progress_artifacts():
        outcome = report_all(plan_report(request), Steps(tracked))
    publish_report(outcome.pages, request.name)
    return outcome.as_json()


def plan_report(request: ReportRequest) -> ReportPlan:
    """The edits, found. Raises ValueError in one sentence if there are none, or the place does not fit."""
    to, sources = place_at(request.to), request.sources
    if request.concept is None:
        return _plan_index(request, sources)
    if request.every:
        raise ValueError(f"{request.concept} and --all: give one concept for its page, or --all for an index")
    if not request.to.endswith(SUFFIX):
        raise ValueError(f"to is {request.to!r}; the page of a concept is one file, such as {request.concept}{SUFFIX}")
    Root(to.parent.url).check()
    return ReportPlan(sources, to.url, [find_edit(request.store, request.concept, request.edit)], index=False)


def _plan_index(request: ReportRequest, sources: Sources) -> ReportPlan:
    if request.edit != "latest":
        raise ValueError(f"edit {request.edit} is of one concept; give its slug too, or leave --edit out")
    if request.to.endswith(SUFFIX):
        raise ValueError(f"to is {request.to!r}; an index and its pages go into a directory, such as pages")
    Root(request.to).check()
    slugs = list_concepts(request.store)
    if not request.every:
        known = {one.slug for one in load_catalog(sources.catalog)}
        slugs = [slug for slug in slugs if slug in known]
    edits, failed = [], {}
    for slug in slugs:
        try:
            edit = latest_edit(request.store, slug)
        except CorruptEdit as error:
            failed[slug] = str(error)
            continue
        edits += [] if edit is None else [edit]
    if not edits and not failed:
        of = "" if request.every else f" of a concept in catalog {request.catalog}"
        raise ValueError(f"there is no edit{of} in {sources.store}; run conceptprune erase first")
    title = "Erased concepts" if request.every else f"Erased concepts of {load_catalog(sources.catalog).name}"
    return ReportPlan(sources, Root(request.to).url, edits, True, title, failed)


def report_all(plan: ReportPlan, steps: Steps) -> ReportOutcome:
    """The flow's body. In an index a damaged edit is named, and leaves the other pages alone."""
    if not plan.index:
        page = steps.call(write_report, plan.sources, str(plan.edits[0].path), plan.to)
        return ReportOutcome(plan.sources.store, [page], None, {})
    pages, failed, folder = [], dict(plan.failed), place_at(plan.to)
    written: list[Edit] = []
    for number, edit in enumerate(plan.edits):
        steps.show("pages", number, len(plan.edits))
        try:
            place = str(folder / page_name(edit.concept))
            pages.append(steps.call(write_report, plan.sources, str(edit.path), place, INDEX))
            written.append(edit)
        except (CorruptEdit, DamagedStore) as error:
            failed[edit.concept] = str(error)
    steps.show("pages", len(plan.edits), len(plan.edits))
    urls, names = [str(edit.path) for edit in written], [page_name(edit.concept) for edit in written]
    index = steps.call(write_index, plan.sources, urls, names, plan.to, plan.title, failed)
    return ReportOutcome(plan.sources.store, pages, index, failed)


def page_name(slug: str) -> str:
    """The file of a concept's page beside the index; never the index's own.

    >>> page_name("van-gogh"), page_name("index"), page_name("../x")
    ('van-gogh.html', 'index-concept.html', '%2E.%2Fx.html')
    """
    name = escape(slug)
    return f"{name}{SUFFIX}" if f"{name}{SUFFIX}" != INDEX else f"{name}-concept{SUFFIX}"
