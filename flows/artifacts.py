"""What a run shows in Prefect's UI: progress, tables, markdown, pictures. No secrets; prompts only under pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.attack_outcome import AttackOutcome, share_of
from flows.evaluation_outcome import EvaluationOutcome, text_of
from flows.outcome import Outcome, rows
from flows.steps import progress
from flows.tabling import CatalogOutcome, settings
from tasks.evaluating import image_preview

if TYPE_CHECKING:
    from flows.maintain import Upkeep
    from flows.sweep_outcome import SweepOutcome
    from flows.tune_outcome import TuneOutcome


MOST_ROWS = 500  # of a sweep that are shown: above, only the judged points


@contextmanager
def progress_artifacts() -> Iterator[None]:
    """While the block runs, every stage of a running flow has a progress bar in the UI too."""
    shown = progress.get()
    bars: dict[str, UUID] = {}

    def show(stage: str, done: int, total: int) -> None:
        shown(stage, done, total)
        if total == 0 or stage.startswith("capture set"):  # one for each set of a catalog would be too many
            return
        if stage not in bars:
            bars[stage] = created(create_progress_artifact(0.0, key=key_of(stage), description=stage))
        update_progress_artifact(bars[stage], 100 * done / total, description=f"{stage}: {done} of {total}")

    token = progress.set(show)
    try:
        yield
    finally:
        progress.reset(token)


def publish(outcome: Outcome) -> None:
    """Make the artifacts of an edit inside a running flow: its evaluation, its sites, its contact sheet."""
    done, total = outcome.pruned
    edit = f"{outcome.concept}, edit {outcome.edit}"
    judged = [(re.sub("^  ", "others: ", what), *shares) for what, *shares in rows(outcome)]
    table = [dict(zip(("judged right", "before", "after", "judgements"), row, strict=True)) for row in judged]
    if table:
        create_table_artifact(table, key=f"{outcome.concept}-evaluation", description=edit)
    create_markdown_artifact(_summary(outcome, done, total), key=f"{outcome.concept}-edit", description=edit)
    if outcome.sheet:
        _show_picture(outcome.sheet, "before and after", key=f"{outcome.concept}-sheet", description=edit)


def publish_evaluation(outcome: EvaluationOutcome) -> None:
    """Make the table of an evaluation's numbers inside a running flow."""
    table = [
        {"metric": row.metric, "prompts": row.part, "group": row.group, "before": text_of(row, "before"),
         "after": text_of(row, "after"), "change": text_of(row, "change"), "n": row.n}
        for row in outcome.rows
    ]  # fmt: skip
    key = key_of(f"{outcome.concept}-measurements")
    create_table_artifact(table, key=key, description=f"{outcome.concept}, edit {outcome.edit}: 95 % intervals")


def publish_catalog(outcome: CatalogOutcome) -> None:
    """Make the table of a catalog's edits, and the list of those that failed, inside a running flow."""
    table = [
        {"concept": row.concept, "k": row.sparsity, "t_hat": row.t_hat, "share": row.vote_share,
         "pruned": f"{row.density:.2%}", "erased": _change(row.concept_before, row.concept_after),
         "others": _change(row.others_before, row.others_after), "s": round(row.seconds), "edit": row.edit}
        for row in outcome.rows
    ]  # fmt: skip
    create_table_artifact(table, key=key_of(f"{outcome.name}-edits"), description=f"edits in {outcome.store}")
    if outcome.failed:
        failed = [{"concept": slug, "failed": why} for slug, why in outcome.failed.items()]
        create_table_artifact(failed, key=key_of(f"{outcome.name}-failed"), description=f"{len(failed)} concepts")


def publish_combined(outcome: Outcome) -> None:
    """Make the artifacts of a combined edit inside a running flow: its sites, and what protection spares."""
    done, total = outcome.pruned
    create_markdown_artifact(_summary(outcome, done, total), key=f"{outcome.concept}-edit")
    table = [{"concept": slug, "weights": found["weights"], "spared": found["spared"], **found["by"]}
             for slug, found in outcome.report["overlaps"].items()]  # fmt: skip
    create_table_artifact(table, key=f"{outcome.concept}-overlaps", description="weights that protected concepts keep")


def publish_sweep(outcome: SweepOutcome) -> None:
    """Make the table of a sweep's points, its charts, and the point that it would choose, inside a running flow."""
    points = outcome.points if len(outcome.points) <= MOST_ROWS else outcome.judged
    table = [
        {"k": point.sparsity, "t_hat": point.t_hat, "vote share": point.vote_share, "pruned": f"{point.density:.3%}",
         "erased": _share(point.erased), "kept": _share(point.kept), "chosen": "yes" if point.chosen else ""}
        for point in points
    ]  # fmt: skip
    key = key_of(f"{outcome.concept}-sweep")
    create_table_artifact(table, key=key, description=outcome.why)
    for name, url in outcome.charts.items():
        _show_picture(url, name, key=f"{key}-{name}", description=f"{name} of sweep {outcome.sweep}")


def publish_attacks(outcome: AttackOutcome) -> None:
    """Make the table of an edit's attacks inside a running flow."""
    table = [
        {"attack": row.attack, "steps": row.budget, "edited": share_of(row, "before"),
         "attacked": share_of(row, "after"), "unedited": f"{row.unedited:.0%}", "n": row.n}
        for row in outcome.rows
    ]  # fmt: skip
    key = key_of(f"{outcome.concept}-attacks")
    create_table_artifact(table, key=key, description=f"{outcome.concept}, edit {outcome.edit}: pictures that show it")


def publish_tune(outcome: TuneOutcome) -> None:
    """Make the table of a tuning's candidates, and its trade-off, inside a running flow."""
    table = [
        {"k": one.sparsity, "t_hat": one.t_hat, "vote share": one.vote_share, "branch": one.branch,
         "pruned": f"{one.density:.3%}", "erased": _share(getattr(one.validation, "erased", None)),
         "kept": _share(getattr(one.validation, "kept", None)),
         "held out": " / ".join(_share(s) for s in (one.held_out.erased, one.held_out.kept)) if one.held_out else "",
         "chosen": "yes" if one.chosen else "the catalog's" if one.preset else ""}
        for one in outcome.candidates
    ]  # fmt: skip
    key = key_of(f"{outcome.concept}-tune")
    create_table_artifact(table, key=key, description=f"{outcome.why}; {outcome.held_out}")
    _show_picture(outcome.chart, "trade-off", key=f"{key}-tradeoff", description=outcome.held_out)


def publish_report(pages: Sequence[Mapping[str, Any]], name: str) -> None:
    """Make the table of written pages inside a running flow."""
    table = [{column: page[column] for column in ("concept", "edit", "page", "bytes", "images")} for page in pages]
    create_table_artifact(table, key=key_of(f"{name}-report"), description=f"{len(pages)} pages about edits")


def publish_upkeep(found: Upkeep) -> None:
    """Make the table of what was found in a store and done about it, inside a running flow."""
    table = [{"what": what, "state": "damaged", "why": why} for what, why in found.damaged.items()]
    table += [{"what": store, "state": f"slots {', '.join(map(str, slots))} made pending", "why": "damaged energies"}
              for store, slots in found.reset.items()]  # fmt: skip
    table += [{"what": url, "state": "deleted", "why": "an old ranking, a cache"} for url in found.rankings]
    table += [{"what": path, "state": "deleted", "why": "left behind by a killed writer"} for path in found.leftovers]
    done = f"{found.edits} edits and pointers of {found.store} verified, {len(found.damaged)} damaged"
    table = table or [{"what": "everything", "state": "sound", "why": done}]
    create_table_artifact(table, key="upkeep", description=done)


def key_of(text: str) -> str:
    """An artifact's key: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "artifact"


def created(artifact: Any) -> UUID:
    """The id of an artifact; Prefect's types leave it open whether it was awaited."""
    assert isinstance(artifact, UUID)
    return artifact


def _show_picture(url: str, alt: str, key: str, description: str) -> None:
    """A picture of the store, as markdown: beside an image artifact the UI writes its URL, the whole picture."""
    create_markdown_artifact(f"![{alt}]({image_preview(url)})", key=key, description=description)


def _change(before: float | None, after: float | None) -> str:
    return "" if before is None or after is None else f"{before:.0%} -> {after:.0%}"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _summary(outcome: Outcome, done: int, total: int) -> str:
    sites = "\n".join(
        f"| {name} | {site['pruned']:,} | {site['pruned'] / site['weights']:.2%} |"
        for name, site in outcome.report["sites"].items()
    )
    return (
        f"# {outcome.concept}\n\n{done:,} of {total:,} weights pruned ({done / total:.2%}): "
        f"{settings(outcome.manifest['prune'])}.\n\n"
        f"Edit `{outcome.url}`\n\n| site | pruned | density |\n|---|--:|--:|\n{sites}\n"
    )
