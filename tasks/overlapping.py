"""How far a concept's edit shares weights with those of the store's other concepts, as plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from storage.edits import Edit, latest, read_edit
from storage.listing import list_concepts
from storage.parallel import at_once
from tasks.metrics import concept_charts as charts
from tasks.plot_data import Plots, Source
from tasks.pruning.masks import Bools, candidates
from tasks.pruning.stability import iou, overall_iou, step_iou

OTHERS = 20  # concepts to compare with, the most recent


def plot_overlaps(source: Source, masks: Mapping[str, Bools], plots: Plots) -> None:
    """Intersection over union with the store's other concepts: of masks by site, of skilled weights by step."""
    concept, others = source.edit.concept, _others(source, plots)
    rows: dict[str, npt.NDArray[np.float64]] = {}
    for edit in others:
        pair = {concept: masks, edit.concept: edit.masks()}
        if pair[edit.concept].keys() != masks.keys():
            plots.notes.append(f"{edit.concept} prunes other sites and is left out of the overlaps")
            continue
        rows[edit.concept] = np.append(overall_iou(pair).values[0, 1], iou(pair).values[0, 1])
    if not rows:
        plots.notes.append("there is no other concept of this model in the store to compare with")
        return
    order = sorted(rows, key=lambda slug: -rows[slug][0])
    title, columns = (
        f"{concept}: IoU of pruned weights with other concepts",
        ["all", *charts.compact_names(list(masks))],
    )
    table = np.stack([rows[slug] for slug in order])
    plots.put(f"{concept}-iou-by-site.png", charts.overlap_map(title, order, columns, table, "site"))
    if "combined" not in source.prune:
        plot_step_overlaps(source, [edit for edit in others if edit.concept in rows], plots)


def plot_step_overlaps(source: Source, others: Sequence[Edit], plots: Plots) -> None:
    """IoU of skilled weights at each step that votes, the mean over sites, by this concept's own k.

    Only what is ranked already, as deep as that, is compared: no other concept is ranked for a plot.
    """
    concept, steps, rows = source.edit.concept, source.prune["t_hat"], {}
    if not source.ranked(source.sparsity):
        plots.notes.append(f"the ranking of {concept} is not in the store: no overlaps by step")
        return
    peers = {edit.concept: Source(source.store, edit) for edit in others}
    ready = [slug for slug, peer in peers.items() if _comparable(source, peer)]
    compared = {concept: source, **{slug: peers[slug] for slug in ready}}
    if left_out := sorted(peers.keys() - set(ready)):
        plots.notes.append(
            f"the overlaps by step leave out {', '.join(left_out)}: not captured under the same profile, or not ranked "
            f"as deep as k {source.prune['sparsity']} needs"
        )
    if not ready:
        return
    for site in source.sites:
        count = candidates(source.sparsity, site.width)
        rankings = {slug: one.ranking(site, count, steps) for slug, one in compared.items()}
        rows[site.name] = step_iou(rankings, site.width, count).sel(concept=concept, other=ready).values
    table = np.mean(list(rows.values()), axis=0)
    order = np.argsort(-table.mean(1))
    title = f"{concept}: IoU of skilled weights with other concepts"
    label = f"step (the first {steps} vote); mean over {len(rows)} sites"
    names = [ready[place] for place in order]
    plots.put(
        f"{concept}-iou-by-step.png",
        charts.overlap_map(title, names, [str(step) for step in range(steps)], table[order], label),
    )


def _comparable(source: Source, other: Source) -> bool:
    """Whether the other was captured under the same profile, and is ranked as deep as this one's k needs."""
    return other.key.profile == source.key.profile and other.ranked(source.sparsity)


def _others(source: Source, plots: Plots) -> list[Edit]:
    """The latest edits of other concepts of the same model, the most recent first; combinations are left out."""
    model, concept = source.edit.manifest["model"]["key"], source.edit.concept

    def newest(slug: str) -> Edit | None:
        edit = latest(source.store, model, slug)
        return None if edit is None else read_edit(source.store, model, slug, edit)

    found = at_once(newest, [slug for slug in list_concepts(source.store) if slug != concept])
    edits = [edit for edit in found if edit is not None and "combined" not in edit.manifest["prune"]]
    edits.sort(key=lambda edit: (str(edit.manifest["created"]), edit.concept), reverse=True)
    if len(edits) > OTHERS:
        plots.notes.append(f"compared with the {OTHERS} most recent of {len(edits)} other concepts")
    return edits[:OTHERS]
