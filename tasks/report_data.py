"""The page of an edit, gathered from the store: what it says, where each part of it comes from, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from storage.activations import ActivationStore
from storage.edits import Edit
from tasks.catalogs import load_catalog
from tasks.concepts.concept import Concept
from tasks.pages.graphics import StepChart, steps
from tasks.pages.page import EditPage, IndexRow, Measure, Number, Tile
from tasks.pages.words import density, number, plural
from tasks.plot_data import Source
from tasks.pruning.masks import candidates
from tasks.report_facts import facts, files, settings
from tasks.report_images import Album, album, thumbnail
from tasks.report_numbers import attacks, measurements, measures, quick, rows_of, sites, swept

MOST_RANKED = 400_000_000  # ranked weights by step that a page reads; more take too long for a chart
LIMITS = (
    "Pruning hides a concept and removes nothing: fine-tuning, other languages, image prompts or an attack on the "
    "prompt may bring it back.",
    "A judge is a model too. What it calls gone may be there for people, and its mistakes before and after are in "
    "every number.",
    "Numbers are of the prompts and seeds that are named beside them. Other prompts, seeds, steps or guidance give "
    "others.",
    "Intervals cover the images' chance alone, not the choice of prompts, of the judge, or of the settings: an edit "
    "whose settings were chosen on these prompts looks better than it is.",
)


@dataclass(frozen=True)
class Sources:
    """Where pages are made from."""

    store: str
    catalog: str  # path or URL: prompts' words that the store lacks, and kinds of concepts
    images: int  # pairs of each set of prompts at most

    def concept(self, slug: str) -> Concept | None:
        """What the catalog has of a concept; None if it does not know it."""
        catalog = load_catalog(self.catalog)
        return catalog[slug] if slug in {one.slug for one in catalog} else None


@dataclass(frozen=True)
class Judged:
    """What a judge says of an edit, before and after, over so many judgements; and whether evaluate measured it."""

    concept: tuple[Number, Number, int]
    others: tuple[Number, Number, int] | None
    judge: str
    measured: bool

    @property
    def erased(self) -> Number:
        """Share of the judge's hits on the concept that are gone."""
        return _gone(*self.concept)

    @property
    def kept(self) -> Number:
        """Share of its hits on others that are left."""
        if self.others is None or not self.others[0].value:
            return Number("")
        return number(min(1.0, (self.others[1].value or 0) / self.others[0].value), n=self.others[2])


def edit_page(sources: Sources, edit: Edit, index: str | None = None) -> EditPage:
    """All that the page of an edit says. Raises CorruptEdit or DamagedStore if what it is made of is damaged."""
    report: dict[str, Any] = json.loads(edit.read("report.json"))
    rows = rows_of(sources.store, "evaluations", concept=edit.concept, edit=edit.id)
    documents = measurements(sources.store, rows)
    looked, numbers = judged(report, rows, documents), quick(report, edit.concept)
    shown = measures(rows, documents)
    pictures = album(sources.store, edit, documents, sources.concept(edit.concept), sources.images)
    (points, tradeoff), (chart, why) = swept(sources.store, edit), step_chart(sources.store, edit)
    found = attacks(sources.store, edit)
    return EditPage(
        concept=edit.concept, edit=edit.id, model=_model(edit), created=str(edit.manifest["created"]),
        summary=summary(edit, report, looked), tiles=tiles(edit, report, looked), explicit=pictures.explicit,
        galleries=pictures.galleries, measures=shown, quick=numbers, sites=sites(report),
        facts=facts(sources.store, edit, documents), files=files(edit), limits=LIMITS,
        notes=_notes(pictures, shown, bool(numbers), bool(points), why, bool(found)), sweep=points, tradeoff=tradeoff,
        steps=chart, attacks=found, index=index,
    )  # fmt: skip


def index_row(sources: Sources, edit: Edit, page: str) -> IndexRow:
    """The row of an edit in the index."""
    report: dict[str, Any] = json.loads(edit.read("report.json"))
    rows = rows_of(sources.store, "evaluations", concept=edit.concept, edit=edit.id)
    documents = measurements(sources.store, rows)
    looked = judged(report, rows, documents)
    nothing = Number("")
    counts = "not judged"
    if looked is not None:
        others = "" if looked.others is None else f", others {looked.others[2]}"
        counts = f"concept {looked.concept[2]}{others}, by {looked.judge}"
    return IndexRow(
        concept=edit.concept, page=page, edit=edit.id, model=_model(edit), created=str(edit.manifest["created"]),
        erased=looked.erased if looked else nothing, kept=looked.kept if looked else nothing, density=_density(report),
        n=counts, settings=settings(edit.manifest["prune"]),
        pair=thumbnail(sources.store, edit, documents, sources.concept(edit.concept)),
    )  # fmt: skip


def judged(
    report: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], documents: Sequence[Mapping[str, Any]]
) -> Judged | None:
    """What the summary rests on: a classifier's measurement over the catalog's prompts, else the edit's first look.

    Of several classifiers the one that took the first look comes first. None if no judge has looked.
    """
    first = (report["evaluation"] or {}).get("judge", {})
    names = {one["url"]: str(one["about"].get("judge", "a classifier")) for one in documents}
    whole = [row for row in rows if row["metric"] == "classifier" and not row["group"]]
    whole.sort(key=lambda row: (row["detector"] != first.get("sha256"), row["detector"], row["url"]))
    parts = {part: [row for row in whole if row["part"] == part] for part in ("concept", "others")}
    if parts["concept"]:
        row = parts["concept"][0]
        others = next((other for other in parts["others"] if other["detector"] == row["detector"]), None)
        judge = names.get(str(row["url"]).rpartition("/")[2], "a classifier")
        return Judged(_measured(row), None if others is None else _measured(others), judge, True)
    if not first:
        return None
    looks = {part: report["evaluation"].get(part) for part in ("concept", "others")}
    found = {part: (number(look["before"], n=look["n"]), number(look["after"], n=look["n"]), int(look["n"]))
             for part, look in looks.items() if look and look["n"]}  # fmt: skip
    return Judged(found["concept"], found.get("others"), str(first["name"]), False) if "concept" in found else None


def summary(edit: Edit, report: Mapping[str, Any], looked: Judged | None) -> str:
    """One sentence: what share of the concept is gone, what others keep, and what it costs in weights."""
    weights = f"{_density(report).text} of the weights of {plural(len(report['sites']), 'layer')}"
    if looked is None:
        return f"{weights} are set to zero; no judge has looked at images of it."
    before, after, n = looked.concept
    if not before.value:
        head = f"The judge saw nothing of {edit.concept} even before the edit ({before.text}, n {n})"
    else:
        head = (
            f"{looked.erased.text} of what the judge recognised of {edit.concept} is gone: {before.text} before, "
            f"{after.text} after (n {n})"
        )
    rest = ""
    if looked.others is not None:
        pair, size = looked.others[:2], looked.others[2]
        rest = f"; everything else goes from {pair[0].text} to {pair[1].text} (n {size})"
    return f"{head}{rest}; {weights} are set to zero for it."


def tiles(edit: Edit, report: Mapping[str, Any], looked: Judged | None) -> list[Tile]:
    """The three numbers at the top."""
    pruned, weights = _pruned(report)
    taken = Tile("of the weights are set to zero", _density(report),
                 f"{pruned:,} of {weights:,} weights in {plural(len(report['sites']), 'layer')}")  # fmt: skip
    if looked is None:
        note = "no judge has looked; run conceptprune evaluate"
        return [
            Tile(f"of {edit.concept} is gone", Number(""), note),
            Tile("of everything else is kept", Number(""), note),
            taken,
        ]
    source = "conceptprune evaluate; 95 % intervals" if looked.measured else "the first look when the edit was made"
    before, after, n = looked.concept
    judge = f"by the classifier “{looked.judge}”, from {source}"
    gone = f"{_whole(before)} before, {_whole(after)} after, of {n} judgements {judge}"
    kept = "no other prompts were judged"
    if looked.others is not None:
        pair, size = looked.others[:2], looked.others[2]
        kept = f"{_whole(pair[0])} before, {_whole(pair[1])} after, of {size} judgements of other prompts {judge}"
    return [
        Tile(f"of {edit.concept} is gone", looked.erased, gone),
        Tile("of everything else is kept", looked.kept, kept),
        taken,
    ]


def step_chart(store: str, edit: Edit) -> tuple[StepChart | None, str | None]:
    """Share of candidates that are skilled at each step, from the ranking that is stored; or why there is none."""
    source = Source(store, edit)
    if "combined" in source.prune:
        return None, "This edit combines others and has no ranking of its own."
    try:
        ranked = source.ranked(source.sparsity)
    except FileNotFoundError:
        ranked = False
    if not ranked:
        return None, "The ranking is not in the store any more, so shares by step are left out."
    counts = {site.name: candidates(source.sparsity, site.width) for site in source.sites}
    captured, _ = ActivationStore(store, source.key.profile, source.key.target).steps_and_branches()
    if sum(site.rows * counts[site.name] for site in source.sites) * captured > MOST_RANKED:
        return None, "The ranking is too large to be read for a page; conceptprune show --plots draws it."
    shares, sizes = [], []
    for site in source.sites:
        kept = source.ranking(site, counts[site.name]).kept
        shares.append(kept.mean((1, 2)))
        sizes.append(site.rows * counts[site.name])
    every = np.stack(shares)
    overall = (every * np.array(sizes)[:, None]).sum(0) / sum(sizes)
    line, low, high = ([float(value) for value in one] for one in (overall, every.min(0), every.max(0)))
    return steps(line, low, high, int(source.prune["t_hat"])), None


def _notes(
    pictures: Album, measured: Sequence[Measure], looked: bool, points: bool, steps_why: str | None, attacked: bool
) -> dict[str, str]:
    notes = {} if pictures.note is None else {"images": pictures.note}
    if not measured:
        first = "the first look is all there is" if looked else "no judge has looked at this edit"
        notes["numbers"] = f"No measurement is in the store: {first}. conceptprune evaluate measures with intervals."
    if not points:
        notes["tradeoff"] = "No sweep of this concept has judged points here; conceptprune sweep --images draws some."
    if steps_why is not None:
        notes["steps"] = steps_why
    if not attacked:
        notes["attacks"] = "No attack was run on this edit. How easily the concept comes back is not known."
    return notes


def _measured(row: Mapping[str, Any]) -> tuple[Number, Number, int]:
    n = int(row["n"])
    pair = [number(row[when], row[f"{when}_low"], row[f"{when}_high"], n=n) for when in ("before", "after")]
    return pair[0], pair[1], n


def _whole(one: Number) -> str:
    return f"{one.text} ({one.interval})" if one.interval else one.text


def _gone(before: Number, after: Number, n: int) -> Number:
    """Share of hits that are gone; 0 where there were none to lose."""
    if not before.value:
        return Number("")
    return number(max(0.0, 1 - (after.value or 0) / before.value), n=n)


def _density(report: Mapping[str, Any]) -> Number:
    pruned, weights = _pruned(report)
    return Number(density(pruned / weights), pruned / weights)


def _pruned(report: Mapping[str, Any]) -> tuple[int, int]:
    every = report["sites"].values()
    return sum(site["pruned"] for site in every), sum(site["weights"] for site in every)


def _model(edit: Edit) -> str:
    revision = edit.manifest["model"].get("revision")
    return f"{edit.manifest['model']['id']}{f' @ {revision[:12]}' if revision else ''}"
