"""A grid of k, t_hat and vote share: all densities from one ranking, and images of some points to choose by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.artifacts import progress_artifacts, publish_sweep
from flows.choosing import KEEP
from flows.config import Common
from flows.erase_concept import cut
from flows.steps import Steps, tracked
from flows.stored import evaluated, stored_cut
from flows.sweep_outcome import SweepOutcome, SweepPoint, choose, spread
from flows.tabling import COLUMNS, EditRow, table_edits
from storage import tables
from storage.edits import Edit
from storage.names import digest
from tasks.cuts import Cut
from tasks.diffusion.spec import parse_sparsity
from tasks.ranking import rank_concept
from tasks.sweeping import Grid, count_points, draw_sweep, share_images

TABLE = "sweeps"  # a row for each point of each sweep
MOST_POINTS = 10_000  # of a grid: more would be neither read nor drawn


class SweepRequest(Common):
    """A grid for one concept. A list that is left out is the value of the concept's latest edit."""

    concept: str = Field(min_length=1, max_length=200)
    sparsities: list[str] | None = Field(
        default=None, min_length=1, max_length=100, description="shares of each row that are candidates, 0.02 or 2%"
    )
    t_hats: list[Annotated[int, Field(ge=1, le=2000)]] | None = Field(
        default=None, min_length=1, max_length=100, description="numbers of first steps that vote"
    )
    vote_shares: list[Annotated[float, Field(ge=0, lt=1)]] | None = Field(
        default=None, min_length=1, max_length=100, description="shares of them that must agree"
    )
    images: int = Field(
        default=0, ge=0, le=1000, description="how many points to draw and judge, spread over the densities"
    )


@dataclass(frozen=True)
class SweepPlan:
    """A sweep to be made: the cut that its points vary, and the grid."""

    request: SweepRequest
    base: Cut
    grid: Grid

    @property
    def sweep(self) -> str:
        """Its address: a digest of the ranking, the grid, and how many points are judged, by which judge."""
        asked = self.base.evaluation
        judged = None if asked is None else [asked.judge_sha256, asked.prompts, self.request.images]
        grid = [[_text(k) for k in self.grid.sparsities], self.grid.t_hats, self.grid.vote_shares]
        return digest([asdict(self.base.ranking), grid, judged])

    def points(self, pruned: Sequence[int]) -> list[SweepPoint]:
        """The grid's points, given how many weights each prunes."""
        weights = sum(site.width * site.rows for site in self.base.sites)
        return [SweepPoint(_text(k), t_hat, share, number, weights)
                for (k, t_hat, share), number in zip(self.grid.points(), pruned, strict=True)]  # fmt: skip

    def cut(self, point: SweepPoint) -> Cut:
        """The edit that a point is."""
        prune = replace(
            self.base.prune, sparsity=Decimal(point.sparsity), t_hat=point.t_hat, vote_share=point.vote_share
        )
        return replace(self.base, prune=prune)

    def command(self, points: Sequence[SweepPoint]) -> str | None:
        """What makes the chosen point the concept's latest edit: its images are there. None if none was chosen."""
        words = [f"conceptprune rethreshold {self.request.concept}"]
        for point in points:
            if point.chosen:
                words.append(f"--sparsity {point.sparsity} --t-hat {point.t_hat} --vote-share {point.vote_share:g}")
        given = {name: getattr(self.request, name) for name in ("branch", "prompts")}
        words += [f"--{name} {value}" for name, value in given.items() if value is not None]
        return " ".join([*words, "--evaluate"]) if any(point.chosen for point in points) else None


@flow(name="sweep", flow_run_name="sweep-{request.concept}")
def sweep(request: SweepRequest) -> dict[str, Any]:
    """Find the densities of a grid, judge some of its points, and say which it would choose."""
    with progress_artifacts():
        outcome = sweep_all(plan_sweep(request), Steps(tracked))
    publish_sweep(outcome)
    return outcome.as_json()


def plan_sweep(request: SweepRequest) -> SweepPlan:
    """The grid and the cut that its points vary; only images need the catalog, the judge and the model.

    Raises ValueError in one sentence if a point cannot be made, or images cannot be judged.
    """
    if not (request.sparsities or request.t_hats or request.vote_shares):
        raise ValueError("there is no grid to sweep; give lists by commas, such as --sparsity 0.01,0.02,0.05")
    sparsities = [parse_sparsity(text) for text in request.sparsities or ()]
    for k in sparsities:
        if not k.is_finite() or not 0 < k <= 1:
            raise ValueError(f"sparsity is {k}; it must be above 0 and at most 1, such as 0.05 for 5 %")
    hardest = {"sparsity": _text(min(sparsities)) if sparsities else request.sparsity,
               "t_hat": max(request.t_hats) if request.t_hats else request.t_hat}  # fmt: skip
    base = stored_cut(request.model_copy(update=hardest), request.concept)
    prune = base.prune
    grid = Grid.of(
        sparsities or [prune.sparsity], request.t_hats or [prune.t_hat], request.vote_shares or [prune.vote_share]
    )
    if (number := len(grid.points())) > MOST_POINTS:
        raise ValueError(f"the grid has {number} points; at most {MOST_POINTS} can be shown, give shorter lists")
    if request.images:
        base = evaluated(base, request)
        if base.evaluation is None:
            raise ValueError(
                f"catalog {request.catalog_url} has no prompts to judge {request.concept} by; "
                "add concept prompts to its recipe, or leave --images out"
            )
    return SweepPlan(request, base, grid)


def sweep_all(plan: SweepPlan, steps: Steps) -> SweepOutcome:
    """The flow's body. Points that were judged before are taken as they are; no edit becomes the concept's latest."""
    base, request = plan.base, plan.request
    with steps.stage("rank"):
        steps.call(rank_concept, base.store, base.ranking, list(base.sites), max(plan.grid.sparsities))
    with steps.stage("densities"):
        points = plan.points(steps.call(count_points, base, plan.grid))
    judged = spread(points, request.images)
    with steps.stage("judge"):
        rows = judge([plan.cut(points[place]) for place in judged], request.batch, steps)
    for place, row in zip(judged, rows, strict=True):
        points[place] = replace(points[place], row=row)
    points, why = choose(points, request.concept)
    shown = [point.as_chart() for point in points]
    charts = steps.call(draw_sweep, request.store, request.concept, plan.sweep, shown, KEEP)
    table_sweep(plan, points)
    return SweepOutcome(request.concept, request.store, plan.sweep, points, why, charts, plan.command(points))


def judge(cuts: Sequence[Cut], batch: int, steps: Steps) -> list[EditRow]:
    """Make the edits with their images, those that are missing; what the untouched model draws is drawn once."""
    edits: list[Edit] = []
    for number, one in enumerate(cuts):
        steps.show("points", number, len(cuts))
        edit = one.draft.sealed(latest=False)
        if edit is None:
            if edits:
                steps.call(share_images, cuts[0].draft, one.draft)
            edit = cut(one, batch, Steps(steps.call), latest=False)
        edits.append(edit)
    steps.show("points", len(cuts), len(cuts))
    return table_edits(cuts[0].store, edits) if cuts else []


def table_sweep(plan: SweepPlan, points: Sequence[SweepPoint]) -> None:
    """Add the points to the store's table, unless the same sweep is in it."""
    if plan.sweep in tables.values(plan.request.store, TABLE, "sweep"):
        return
    common = {"sweep": plan.sweep, "concept": plan.request.concept, **asdict(plan.base.ranking)}
    types = {**COLUMNS, "erased": COLUMNS["density"], "kept": COLUMNS["density"]}
    tables.write_rows(plan.request.store, TABLE, [{**common, **point.as_row()} for point in points], types)


def _text(sparsity: Decimal) -> str:
    return format(sparsity.normalize(), "f")
