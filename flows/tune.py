"""Settings chosen by evidence: a grid from cached activations, few candidates drawn, the choice confirmed elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.artifacts import progress_artifacts, publish_tune
from flows.choosing import KEEP, Score, best
from flows.config import Common
from flows.erase_concept import cut
from flows.evaluate import draws
from flows.specs import prune_spec
from flows.steps import Steps, tracked
from flows.stored import evaluated, stored_cut
from flows.sweep_outcome import SweepPoint, spread
from flows.tune_outcome import TABLE, Candidate, Shares, TuneOutcome
from storage import tables
from storage.activations import ActivationStore
from storage.edits import Edit
from storage.names import digest
from tasks.catalogs import load_catalog
from tasks.cuts import Cut, EvaluationPart, Half
from tasks.diffusion.spec import Branch, parse_sparsity
from tasks.drawing import draw_batch
from tasks.measuring import MetricSpec, measure
from tasks.ranking import rank_concept
from tasks.sweeping import Grid, count_points, draw_tradeoff

FACTORS = ("0.125", "0.25", "0.5", "0.75", "1", "1.5")  # of the preset's k
VOTE_SHARES = (0.0, 0.2, 0.35, 0.5, 0.7)
CANDIDATES = 10
Settings = tuple[str, int, float, Branch]  # of a candidate


class TuneRequest(Common):
    """What may be tried for one concept. A list that is left out is made around the catalog's settings."""

    concept: str = Field(min_length=1, max_length=200, description="its slug; it must have been captured")
    sparsities: list[str] | None = Field(default=None, min_length=1, max_length=50)
    t_hats: list[Annotated[int, Field(ge=1, le=2000)]] | None = Field(default=None, min_length=1, max_length=50)
    vote_shares: list[Annotated[float, Field(ge=0, lt=1)]] | None = Field(default=None, min_length=1, max_length=50)
    branches: list[Branch] | None = Field(default=None, min_length=1, max_length=3)
    candidates: int = Field(default=CANDIDATES, ge=2, le=200, description="settings that are drawn and judged")
    keep: float = Field(default=KEEP, gt=0, le=1, description="share of their accuracy that others shall keep")
    adopt: bool = Field(default=True, description="make the chosen edit the concept's latest")


@dataclass(frozen=True)
class TunePlan:
    """A tuning to be done."""

    request: TuneRequest
    base: Cut  # the preset, without an evaluation
    grids: dict[Branch, Grid]
    parts: tuple[EvaluationPart, EvaluationPart]
    judge: MetricSpec

    def cost(self) -> str:
        """What it costs, before it begins."""
        sizes = [len(Half(part, held_out).expectations()) for held_out in (False, True) for part in self.parts]
        validation, held_out = sum(sizes[:2]), sum(sizes[2:])
        number = sum(len(grid.points()) for grid in self.grids.values())
        images = (self.request.candidates + 1) * validation + 3 * held_out
        return (
            f"tune: {number} settings from cached activations, {self.request.candidates} of them drawn on {validation} "
            f"validation prompts, two confirmed on {held_out} held-out ones; at most {images} images"
        )

    def cut(self, one: Candidate) -> Cut:
        """The edit of a candidate."""
        prune = replace(
            self.base.prune, sparsity=Decimal(one.sparsity), t_hat=one.t_hat, vote_share=one.vote_share,
            branch=one.branch,
        )  # fmt: skip
        return replace(self.base, prune=prune, ranking=replace(self.base.ranking, branch=one.branch))


@flow(name="tune", flow_run_name="tune-{request.concept}")
def tune(request: TuneRequest) -> dict[str, Any]:
    """Choose a concept's settings on validation prompts, and confirm them on held-out ones."""
    with progress_artifacts():
        outcome = tune_all(plan_tune(request), Steps(tracked))
    publish_tune(outcome)
    return outcome.as_json()


def plan_tune(request: TuneRequest) -> TunePlan:
    """The grid and the prompts. Raises ValueError in one sentence if the concept was not captured or has no prompts."""
    catalog = load_catalog(request.catalog_url)
    concept = catalog[request.concept]
    preset = prune_spec(request, catalog.prune_defaults(concept))
    given = {"sparsity": format(preset.sparsity, "f"), "t_hat": preset.t_hat, "vote_share": preset.vote_share,
             "branch": preset.branch}  # fmt: skip
    base = stored_cut(request.model_copy(update=given), request.concept)
    judged = evaluated(base, request).evaluation
    if judged is None or len(judged.parts[0].expectations()) < 2:
        raise ValueError(f"catalog {request.catalog_url} has too few prompts to judge {request.concept} by; add some")
    steps, branches = ActivationStore(base.store, base.ranking.profile, base.ranking.target).steps_and_branches()
    grid = Grid.of(
        [parse_sparsity(text) for text in request.sparsities or ()] or _shares(preset.sparsity),
        request.t_hats or sorted({max(1, steps // 4), max(1, steps // 2), preset.t_hat, steps}),
        request.vote_shares or [*VOTE_SHARES, preset.vote_share],
    )
    if max(grid.t_hats) > steps:
        raise ValueError(f"t_hat is {max(grid.t_hats)}, but only {steps} steps are captured; give smaller ones")
    every: list[Branch] = ["both", "cond"] if len(branches) > 1 else ["both"]
    parts = (judged.parts[0], judged.parts[1])
    judge = MetricSpec("classifier", request.judge_path)
    return TunePlan(request, base, {branch: grid for branch in request.branches or every}, parts, judge)


def tune_all(plan: TunePlan, steps: Steps) -> TuneOutcome:
    """The flow's body. What was drawn or judged before is taken as it is."""
    request = plan.request
    with steps.stage("densities"):
        points = grid_points(plan, steps)
    preset = next(one for one in points if one.preset)
    judged = {preset.settings: preset}
    with steps.stage("judge"):
        first = [points[place] for place in spread(_as_sweep(points), request.candidates // 2)]
        judge_all(plan, [preset, *first], judged, request.candidates, steps)
        while len(judged) < request.candidates and (near := nearest(points, judged, request.keep)) is not None:
            judge_all(plan, [near], judged, request.candidates, steps)
    found = list(judged.values())
    place, why = best([_scored(one) for one in found], request.concept, request.keep)
    with steps.stage("confirm"):
        chosen = replace(confirm(plan, found[place], steps), chosen=True)
        preset = chosen if found[place].preset else confirm(plan, judged[preset.settings], steps)
    shown = [chosen if i == place else preset if one.preset else one for i, one in enumerate(found)]
    held_out, beats = verdict(chosen, preset, request.keep)
    sweep = digest([request.concept, asdict(plan.base.ranking), [one.settings for one in shown], request.keep])
    points_shown = [_chart(one) for one in shown]
    chart = steps.call(draw_tradeoff, request.store, request.concept, f"tune-{sweep}", points_shown, request.keep)
    if request.adopt:
        plan.cut(chosen).draft.point()
    table_tune(plan, sweep, shown)
    return TuneOutcome(
        request.concept, request.store, request.keep, len(points), shown, why, held_out, beats, chart, chosen.url or "",
    )  # fmt: skip


def grid_points(plan: TunePlan, steps: Steps) -> list[Candidate]:
    """Every setting of the grid with its density, and the preset's; all from cached activations."""
    preset, found = plan.base.prune, []
    mine = Grid.of([preset.sparsity], [preset.t_hat], [preset.vote_share])
    weights = sum(site.width * site.rows for site in plan.base.sites)
    for branch in dict.fromkeys([preset.branch, *plan.grids]):
        base = replace(plan.base, ranking=replace(plan.base.ranking, branch=branch))
        grids = [grid for grid in (plan.grids.get(branch), mine if branch == preset.branch else None) if grid]
        deepest = max(k for grid in grids for k in grid.sparsities)
        steps.call(rank_concept, base.store, base.ranking, list(base.sites), deepest)
        for grid in grids:
            counts = steps.call(count_points, base, grid)
            for (k, t_hat, share), pruned in zip(grid.points(), counts, strict=True):
                is_preset = (k, t_hat, share, branch) == (
                    preset.sparsity,
                    preset.t_hat,
                    preset.vote_share,
                    preset.branch,
                )
                found.append(Candidate(format(k.normalize(), "f"), t_hat, share, branch, pruned / weights, is_preset))
    return list({one.settings: one for one in found if one.density or one.preset}.values())


def judge_all(
    plan: TunePlan,
    some: Sequence[Candidate],
    judged: dict[Settings, Candidate],
    most: int,
    steps: Steps,
) -> None:
    """Draw and judge candidates on the validation prompts; they join those that are judged, `most` in all."""
    for one in some:
        there = judged.get(one.settings)
        if (there is not None and there.validation is not None) or (there is None and len(judged) >= most):
            continue
        edit = made(plan.cut(one), plan.request.batch, steps)
        shares = shares_of(plan, edit, False, steps)
        judged[one.settings] = replace(one, edit=edit.id, url=str(edit.path), validation=shares)
        steps.show("candidates", sum(1 for c in judged.values() if c.validation), most)


def nearest(points: Sequence[Candidate], judged: dict[Settings, Candidate], keep: float) -> Candidate | None:
    """The next to try: the setting nearest in density to where the best so far may be bettered.

    If others keep enough there, a little more is pruned; else a little less.
    """
    best_one = max((one for one in judged.values() if one.validation), key=lambda one: _scored(one).order(keep))
    shares = best_one.validation
    assert shares is not None  # those alone were looked at
    wanted = math.log(best_one.density or 1e-6) + (0.15 if shares.kept >= keep else -0.3)
    taken = {round(one.density, 6) for one in judged.values()}
    free = [one for one in points if one.settings not in judged and one.density and round(one.density, 6) not in taken]
    return min(free, key=lambda one: abs(math.log(one.density) - wanted), default=None)


def confirm(plan: TunePlan, one: Candidate, steps: Steps) -> Candidate:
    """A candidate with what the held-out prompts say."""
    edit = made(plan.cut(one), plan.request.batch, steps)
    return replace(one, held_out=shares_of(plan, edit, True, steps))


def made(wanted: Cut, batch: int, steps: Steps) -> Edit:
    """The edit, made if it is not there; it does not become the latest."""
    return wanted.draft.sealed(latest=False) or cut(wanted, batch, Steps(steps.call), latest=False)


def shares_of(plan: TunePlan, edit: Edit, held_out: bool, steps: Steps) -> Shares:
    """What the judge sees of the concept and of others, before and after an edit, on one half of the prompts."""
    before, after = draws(plan.request, edit)
    found = []
    for whole in plan.parts:
        part = Half(whole, held_out)
        slots = range(len(part.expectations()))
        for draw in (before, after):
            for start in range(0, len(slots), plan.request.batch):
                steps.call(draw_batch, draw, part, list(slots[start : start + plan.request.batch]))
        found.append(steps.call(measure, plan.judge, plan.request.catalog_url, before, after, part)["numbers"])
    return Shares(*found)


def verdict(chosen: Candidate, preset: Candidate, keep: float) -> tuple[str, bool]:
    """What held-out prompts say, in a sentence, and whether the chosen settings beat the preset by the same rule."""
    if chosen.preset:
        return "the preset itself was chosen", False
    assert chosen.held_out is not None
    assert preset.held_out is not None
    one, other = chosen.score(chosen.held_out), preset.score(preset.held_out)
    beats = one.order(keep) > other.order(keep)
    said = (
        f"on held-out prompts it erases {one.erased:.0%} and others keep {one.kept:.0%}; the preset erases "
        f"{other.erased:.0%} and others keep {other.kept:.0%}: it {'beats' if beats else 'does not beat'} the preset"
    )
    return said, beats


def table_tune(plan: TunePlan, sweep: str, found: Sequence[Candidate]) -> None:
    """Add the candidates to the store's table, unless the same tuning is in it."""
    if sweep in tables.values(plan.request.store, TABLE, "tune"):
        return
    common = {
        "tune": sweep,
        "concept": plan.request.concept,
        "keep": plan.request.keep,
        "model": plan.base.ranking.model,
    }
    types = {
        f"{half}_{what}": tables.TYPES[float] for half in ("validation", "held_out") for what in ("erased", "kept")
    }
    rows = [{**common, **one.as_row()} for one in found]
    tables.write_rows(plan.request.store, TABLE, rows, types)


def _shares(preset: Decimal) -> list[Decimal]:
    return [share for factor in FACTORS if (share := preset * Decimal(factor)) <= 1]


def _scored(one: Candidate) -> Score:
    assert one.validation is not None  # only those that were judged are compared
    return one.score(one.validation)


def _as_sweep(points: Sequence[Candidate]) -> list[SweepPoint]:
    """Points as `spread` takes them: only what is pruned counts there."""
    return [SweepPoint(one.sparsity, one.t_hat, one.vote_share, round(one.density * 1e9), 10**9) for one in points]


def _chart(one: Candidate) -> dict[str, Any]:
    """The fields of a chart's point."""
    shares, names = one.validation, ("sparsity", "t_hat", "vote_share", "branch", "density", "chosen")
    found = {"erased": shares and shares.erased, "kept": shares and shares.kept}
    return {**{name: getattr(one, name) for name in names}, **found}
