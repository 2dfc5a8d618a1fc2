"""Several concepts in one edit: the union of their masks, without what protected concepts need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from flows.artifacts import progress_artifacts, publish_combined
from flows.outcome import Outcome
from flows.steps import Steps, tracked
from flows.tabling import table_edits
from storage.edits import Edit
from storage.listing import find_edit, latest_edit
from storage.parallel import at_once
from tasks.combining import Combination, combine_masks, seal_combined
from tasks.concepts.concept import SLUG


class CombineRequest(BaseModel):
    """One edit of several. A part is a concept's slug, which means its latest edit, or slug@edit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=200, description="slug of the new edit's concept, such as animals")
    erase: list[str] = Field(min_length=1, max_length=1000, description="parts whose weights are pruned")
    protect: list[str] = Field(default=[], max_length=1000, description="parts whose weights are kept")
    store: str = Field(default="conceptprune-store", min_length=1, description="directory or s3://bucket/prefix")


@flow(name="combine", flow_run_name="combine-{request.name}")
def combine(request: CombineRequest) -> dict[str, Any]:
    """Make one edit that erases several concepts and spares what protected ones need."""
    with progress_artifacts():
        outcome = combine_all(plan_combination(request), Steps(tracked))
    publish_combined(outcome)
    return outcome.as_json()


def plan_combination(request: CombineRequest) -> Combination:
    """The parts, found and checked. Raises ValueError in one sentence if they do not go together."""
    if not SLUG.fullmatch(request.name):
        raise ValueError(f"name {request.name!r} is not made of lower-case letters, digits and single dashes")
    roles = [_asked(request.erase), _asked(request.protect)]
    if both := sorted(roles[0].keys() & roles[1].keys()):
        raise ValueError(f"{', '.join(both)}: erased and protected at once; leave each concept in one of the two")
    if request.name in {**roles[0], **roles[1]}:
        raise ValueError(f"{request.name} is a part and the combination's name; give the combination another name")
    there = latest_edit(request.store, request.name)
    if there is not None and "combined" not in there.manifest["prune"]:
        raise ValueError(f"{request.name} is a concept with edits of its own; give the combination another name")
    asked = {**roles[0], **roles[1]}
    edits = dict(zip(asked, at_once(lambda slug: find_edit(request.store, slug, asked[slug]), asked), strict=True))
    _check_models(list(edits.values()))
    erase, protect = ({slug: edits[slug].id for slug in sorted(role)} for role in roles)
    profiles = {edit.manifest["profile"] for edit in edits.values()}
    return Combination(
        store=request.store,
        model=edits[min(edits)].manifest["model"],  # in no order, as is the address
        profile=profiles.pop() if len(profiles) == 1 else "",
        slug=request.name,
        erase=erase,
        protect=protect,
    )


def combine_all(plan: Combination, steps: Steps) -> Outcome:
    """The flow's body. An edit that is there already is verified, made the latest and returned as it is."""
    edit = plan.draft.sealed()
    if edit is None:
        with steps.stage("combine"):
            found = steps.call(combine_masks, plan)
        steps.call(seal_combined, plan, found, steps.seconds)
        edit = plan.draft.sealed()
        assert edit is not None  # it was sealed above
    table_edits(plan.store, [edit])
    return Outcome.of(edit)


def _asked(parts: Sequence[str]) -> Mapping[str, str]:
    """{slug: edit or "latest"} of words such as fox and fox@a9d5d929731cb777."""
    found: dict[str, str] = {}
    for part in parts:
        slug, at, edit = part.partition("@")
        if not slug or (at and not edit):
            raise ValueError(f"{part!r} names no part; give a slug such as fox, or slug@edit")
        if found.setdefault(slug, edit or "latest") != (edit or "latest"):
            raise ValueError(f"{slug} is named twice, with different edits; give each concept once")
    return found


def _check_models(edits: Sequence[Edit]) -> None:
    """Raises ValueError that names the first edit whose model is not that of most."""
    models = [(edit.manifest["model"]["key"], edit.manifest["model"]["weights"]) for edit in edits]
    usual = Counter(models).most_common(1)[0][0]
    for edit, model in zip(edits, models, strict=True):
        if model != usual:
            other = edits[models.index(usual)].concept
            raise ValueError(
                f"{edit.concept}@{edit.id} is an edit of the model {model[0]}, {other} of {usual[0]}; "
                "combine edits of one model, naming them as slug@edit"
            )
