"""The numbers of a report, each with what was compared: measurements, the first look, sweeps, attacks, densities."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from storage import tables
from storage.edits import Edit
from storage.names import digest
from storage.parallel import at_once
from storage.roots import Root
from storage.zarrs import DamagedStore
from tasks.pages import graphics
from tasks.pages.page import Attack, Measure, Number, Quick, SiteBar, SweepRow
from tasks.pages.words import density, drawing, number, plural, share
from tasks.report_images import place_of

SHARES = ("classifier", "clip-accuracy", "nudenet", "safety", "copies")  # metrics in per cent; others are distances
KEEP = 0.95  # share of their accuracy that others shall keep, as sweeps choose by
Row = Mapping[str, Any]


def rows_of(store: str, table: str, **wanted: str) -> list[dict[str, Any]]:
    """A table's rows with these values, in an order that the parts' names do not change; none without the table."""
    parts = tuple(Root(store).path("tables", table).files())
    rows = [row for row in _read(store, table, parts) if all(row.get(name) == value for name, value in wanted.items())]
    return sorted(rows, key=lambda row: json.dumps(row, sort_keys=True, default=str))


@lru_cache(maxsize=8)
def _read(store: str, table: str, parts: tuple[str, ...]) -> list[dict[str, Any]]:
    """All rows of a table, read once for many pages: a part is named by its contents."""
    found: list[dict[str, Any]] = tables.read(store, table).to_pylist() if parts else []
    return found


def measurements(store: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The documents that rows of measurements name, each once; those that are gone are left out.

    Raises DamagedStore if one is not what its address says.
    """
    names = sorted({str(row["url"]).rpartition("/")[2] for row in rows})
    return [found for found in at_once(lambda name: _measurement(store, name), names) if found is not None]


def _measurement(store: str, name: str) -> dict[str, Any] | None:
    place = Root(store).path("evaluations") / name
    if (data := place.get()) is None:
        return None
    try:
        found: dict[str, Any] = json.loads(data)
        sound = f"{digest({key: value for key, value in found.items() if key != 'numbers'})}.json" == name
    except (ValueError, AttributeError):
        sound = False
    if not sound:
        raise DamagedStore(f"{place} is damaged: it is not what its address says; delete it and evaluate again")
    return {**found, "url": name}


def measures(rows: Sequence[Row], documents: Sequence[Mapping[str, Any]]) -> list[Measure]:
    """The rows for people, the concept's prompts first."""
    known = {one["url"]: one for one in documents}
    names = ("part", "metric", "group", "url")
    ordered = sorted(rows, key=lambda row: (place_of(row["part"]), *(row[name] for name in names)))
    return [_measure(row, known.get(str(row["url"]).rpartition("/")[2])) for row in ordered]


def _measure(row: Row, document: Mapping[str, Any] | None) -> Measure:
    percent, n = row["metric"] in SHARES, int(row["n"])

    def one(name: str) -> Number:
        low, high = (row[f"{name}_{end}"] for end in ("low", "high"))
        return number(row[name], low, high, percent=percent, n=n, signed=name == "change")

    distance = row["before"] is None
    return Measure(
        row["metric"], row["part"], row["group"], one("before"), one("after"), one("change"), n, int(row["images"]),
        _detector(row, document), _compared(row, document, distance), str(row["url"]),
    )  # fmt: skip


def _detector(row: Row, document: Mapping[str, Any] | None) -> str:
    about = {} if document is None else document["about"]
    name = about.get("judge") or about.get("class") or (f"NudeNet {about['version']}" if "version" in about else "")
    parts = [str(name)] if name else []
    parts.append(f"sha256 {str(row['detector'])[:12]}")
    if row["threshold"] is not None:
        parts.append(f"threshold {row['threshold']:g}")
    return ", ".join(parts)


def _compared(row: Row, document: Mapping[str, Any] | None, distance: bool) -> str:
    images = plural(int(row["images"]), "image")
    what = f"distance of {images} after the edit from those before" if distance else f"{images} before, the same after"
    if document is None:
        return f"{what}; how they were drawn is not in the store any more"
    prompts = document["prompts"]
    return f"{what}; prompts {prompts['sha256'][:12]}; {drawing(document['draws']['before'])}"


def quick(report: Mapping[str, Any], concept: str) -> list[Quick]:
    """The look that was taken when the edit was made; empty if none was."""
    found = report["evaluation"]
    if not found:
        return []
    by = f"{found['judge']['name']}, sha256 {found['judge']['sha256'][:12]}"
    out = []
    for part, name in (("concept", concept), ("others", "others")):
        if part not in found:
            continue
        lines = {name: found[part]}
        if part == "others" and len(found[part]["groups"]) > 1:
            lines |= {f"{name}, {group}": shares for group, shares in found[part]["groups"].items()}
        for what, shares in lines.items():
            n = int(shares["n"])
            before, after = (number(shares[when], n=n) for when in ("before", "after"))
            out.append(Quick(f"{what}: judged right", before, after, n, by))
        if verdict := found.get("safety", {}).get(part):
            before, after = (number(len(verdict[when]) / verdict["n"], n=verdict["n"]) for when in ("before", "after"))
            checker = f"the model's own safety checker, sha256 {verdict['sha256'][:12]}"
            out.append(Quick(f"{name}: flagged unsafe", before, after, verdict["n"], checker))
    return out


def swept(store: str, edit: Edit) -> tuple[list[SweepRow], graphics.TradeoffChart | None]:
    """The judged points of sweeps over the edit's own capture, the lowest density first, and their chart."""
    sets, model = edit.manifest["prompt_sets"], edit.manifest["model"]["key"]
    rows = rows_of(store, "sweeps", concept=edit.concept, model=model, profile=edit.manifest["profile"],
                   target=sets.get("target", ""), reference=sets.get("reference", ""))  # fmt: skip
    best: dict[Any, dict[str, Any]] = {}
    for row in rows:
        if row.get("erased") is not None:
            chosen = row["chosen"] or best.get(row["edit"], {}).get("chosen", False)
            best[row["edit"]] = {**row, "chosen": chosen}
    ordered = sorted(best.values(), key=lambda row: (row["density"], row["sparsity"], row["t_hat"], row["vote_share"]))
    points = [_point(place + 1, row, row["edit"] == edit.id) for place, row in enumerate(ordered)]
    shown = [
        graphics.Judged(
            one.number, one.erased.value or 0, one.kept.value or 0, _said(one), chosen=one.chosen, own=one.own
        )
        for one in points
    ]
    return points, graphics.tradeoff(shown, KEEP)


def _point(place: int, row: Row, own: bool) -> SweepRow:
    concept, others = (
        f"{share(row[f'{part}_before'])} → {share(row[f'{part}_after'])}, n {row[f'{part}_n']}"
        for part in ("concept", "others")
    )
    plain = [number(row[name], percent=False) for name in ("sparsity", "vote_share")]
    return SweepRow(
        place, plain[0], int(row["t_hat"]), plain[1], Number(density(row["density"]), row["density"]),
        number(row["erased"]), number(row["kept"]), concept, others, bool(row["chosen"]), own,
    )  # fmt: skip


def _said(point: SweepRow) -> str:
    marks = "".join(mark for mark, there in ((", chosen", point.chosen), (", this edit", point.own)) if there)
    return (
        f"{point.number}: k {point.sparsity.text}, t_hat {point.t_hat}, vote share {point.vote_share.text}: "
        f"{point.density.text} pruned, {point.erased.text} erased, {point.kept.text} kept{marks}"
    )


def attacks(store: str, edit: Edit) -> list[Attack]:
    """What attacks on the edit found; empty if none was run."""
    rows = rows_of(store, "attacks", concept=edit.concept, edit=edit.id)
    found = []
    for row in sorted(rows, key=lambda row: (str(row["attack"]), str(row.get("budget")), str(row.get("seed")))):
        n = int(row["n"])
        before, after = (
            number(row[when], row.get(f"{when}_low"), row.get(f"{when}_high"), n=n) for when in ("before", "after")
        )
        budget, seed = ("" if row.get(name) is None else str(row[name]) for name in ("budget", "seed"))
        found.append(Attack(str(row["attack"]), before, after, n, budget, seed))
    return found


def sites(report: Mapping[str, Any]) -> list[SiteBar]:
    """Densities by site, in the model's order."""
    shares = {name: site["pruned"] / site["weights"] for name, site in report["sites"].items()}
    most = max(shares.values(), default=0) or 1
    return [
        SiteBar(name, site["width"], site["weights"], site["pruned"], Number(density(shares[name]), shares[name]),
                shares[name] / most)
        for name, site in report["sites"].items()
    ]  # fmt: skip
