"""The images of a report: what evaluations drew before and after an edit, or what was drawn when it was made."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from storage.edits import Edit
from storage.images import ImageStore
from storage.names import digest
from storage.parallel import at_once
from storage.prompt_lists import Listed, read_prompts
from tasks.catalogs import load_catalog
from tasks.concepts.builtin import builtin_path
from tasks.concepts.concept import Concept, Expectation
from tasks.concepts.prompts import Prompt
from tasks.measuring import FLAGGING
from tasks.pages.page import Gallery, Pair
from tasks.pages.pictures import picture
from tasks.pages.words import drawing, plural

EXPLICIT = "nudity"  # the kind of concepts whose images are covered
PARTS = ("concept", "others")  # come first
OWN = re.compile(r"images/(?P<part>[a-z]+)-(?P<slot>\d+)-before\.png")


@dataclass(frozen=True)
class Shots:
    """One set of prompts as two draws drew it."""

    part: str
    prompts: str  # sha256 of the list
    before: Mapping[str, Any]  # the draws' documents
    after: Mapping[str, Any]
    n: int
    flagged: set[int] = field(default_factory=set)  # slots; what a detector flags before or after
    all_flagged: bool = False  # a detector flags some, and it is not known which


@dataclass(frozen=True)
class Album:
    """The galleries of an edit, and what is to be said of them."""

    galleries: list[Gallery]
    explicit: bool
    note: str | None = None


def album(store: str, edit: Edit, measured: Sequence[Mapping[str, Any]], concept: Concept | None, most: int) -> Album:
    """The images of an edit: `most` pairs of each set of prompts at most, spread evenly over it.

    `measured` are its measurements, `concept` what the catalog has of it. What may be explicit is covered. Raises
    CorruptEdit if an image of the edit is damaged.
    """
    covered = explicit(edit, concept)
    galleries, unknown = [], 0
    for shots in _shots(measured):
        listed = _listed(store, shots, concept)
        if listed is None:
            unknown += 1
            continue
        galleries.append(_gallery(store, shots, listed, covered, most))
    galleries = [gallery for gallery in galleries if gallery.pairs]
    galleries = galleries or _own(edit, concept, covered, most)
    note = None
    if not galleries:
        note = (
            "No images are in the store: the edit was made without evaluation, and conceptprune evaluate was not run."
        )
    elif unknown:
        note = (
            f"{plural(unknown, 'set')} of evaluation prompts is left out: its words are not in the store; run the same "
            "conceptprune evaluate again, or give its --catalog."
        )
    return Album(galleries, any(pair.covered for gallery in galleries for pair in gallery.pairs), note)


def explicit(edit: Edit, concept: Concept | None) -> bool:
    """Whether the concept, or one of those that the edit combines, is of a kind whose images are covered."""
    slugs = set(edit.manifest["prune"].get("combined", {}).get("erase", ())) | {edit.concept}
    ours = {one.slug for one in load_catalog(builtin_path(EXPLICIT)) if one.kind == EXPLICIT}
    return bool(slugs & ours) or (concept is not None and concept.kind == EXPLICIT)


def _shots(measured: Sequence[Mapping[str, Any]]) -> list[Shots]:
    """The distinct sets that were drawn, with what detectors flag in them; the concept's first."""
    found: dict[tuple[str, str, str, str], Shots] = {}
    for one in measured:
        draws, prompts = one["draws"], one["prompts"]
        key = (one["part"], prompts["sha256"], digest(draws["before"]), digest(draws["after"]))
        shots = found.get(key) or Shots(one["part"], prompts["sha256"], draws["before"], draws["after"], prompts["n"])
        if one["metric"] in FLAGGING:
            numbers = one["numbers"]
            flagged = numbers.get("flagged")
            some = any(numbers[when]["value"] > 0 for when in ("before", "after"))
            slots = () if flagged is None else (*flagged["before"], *flagged["after"])
            shots = Shots(
                shots.part, shots.prompts, shots.before, shots.after, shots.n, shots.flagged | set(slots),
                shots.all_flagged or (some and flagged is None),
            )  # fmt: skip
        found[key] = shots
    return [found[key] for key in sorted(found, key=lambda key: (place_of(key[0]), key))]


def place_of(part: str) -> int:
    """Where a part comes: the concept, the others, then files of prompts."""
    return PARTS.index(part) if part in PARTS else len(PARTS)


def _listed(store: str, shots: Shots, concept: Concept | None) -> list[Listed] | None:
    """The prompts of a measurement, from the store or from the catalog, if it has the same ones."""
    listed = read_prompts(store, shots.prompts)
    if listed is None and concept is not None and shots.part in PARTS:
        found = _expected(concept, shots.part)
        if digest([[one.prompt.text, one.prompt.seed, one.labels] for one in found], 64) == shots.prompts:
            listed = [(one.prompt.text, one.prompt.seed, one.labels) for one in found]
    return listed


def _gallery(store: str, shots: Shots, listed: Sequence[Listed], covered: bool, most: int) -> Gallery:
    before, after = (ImageStore(store, digest(dict(about))) for about in (shots.before, shots.after))
    slots = spread(len(listed), most)

    def pair(slot: int) -> Pair | None:
        text, seed, _ = listed[slot]
        name = Prompt(text, seed).name
        try:
            shown = (picture(before.get(name)), picture(after.get(name)))
        except FileNotFoundError:
            return None
        hide = covered or shots.all_flagged or slot in shots.flagged
        return Pair(shown[0], shown[1], text, seed, slot, hide)

    pairs = [pair for pair in at_once(pair, slots) if pair is not None]
    compared = (
        f"{plural(len(listed), 'prompt')}, each drawn twice from the same seed: by the model as it is and with "
        f"the edit; {drawing(shots.before)}."
    )
    return Gallery(_title(shots.part), compared, pairs, _notes(len(pairs), len(slots), len(listed)))


def _own(edit: Edit, concept: Concept | None, covered: bool, most: int) -> list[Gallery]:
    """The images that were drawn when the edit was made."""
    places: dict[str, list[int]] = {}
    for name in sorted(edit.manifest["files"]):
        if found := OWN.fullmatch(name):
            places.setdefault(found["part"], []).append(int(found["slot"]))
    verdict = _verdict(edit)
    galleries = []
    for part in sorted(places, key=lambda part: (place_of(part), part)):
        known = _known(edit, concept, part)
        slots = [places[part][place] for place in spread(len(places[part]), most)]
        flagged = {slot for when in ("before", "after") for slot in verdict.get(part, {}).get(when, ())}

        def pair(slot: int, part: str = part, known: Any = known, flagged: set[int] = flagged) -> Pair:
            names = (f"images/{part}-{slot:03d}-{when}.png" for when in ("before", "after"))
            before, after = (picture(edit.read(name)) for name in names)
            said = known[slot].prompt if known else None
            hide = covered or slot in flagged
            return Pair(before, after, said and said.text, said and said.seed, slot, hide)

        compared = (
            f"{plural(len(places[part]), 'prompt')} of the catalog, each drawn twice from the same seed when the edit "
            "was made: by the model as it is and with the edit."
        )
        notes = _notes(len(slots), len(slots), len(places[part]))
        if not known:
            notes.append("The prompts' words are not in the store; give the --catalog that the edit was made with.")
        galleries.append(Gallery(_title(part), compared, at_once(pair, slots), notes))
    return galleries


def thumbnail(store: str, edit: Edit, measured: Sequence[Mapping[str, Any]], concept: Concept | None) -> Pair | None:
    """The first pair of an edit's images."""
    found = album(store, edit, measured, concept, 1).galleries
    return found[0].pairs[0] if found else None


def spread(count: int, most: int) -> list[int]:
    """At most so many of the places 0 to count - 1, evenly.

    >>> spread(3, 5), spread(10, 4)
    ([0, 1, 2], [0, 2, 5, 7])
    """
    return list(range(count)) if count <= most else [place * count // most for place in range(most)]


def _known(edit: Edit, concept: Concept | None, part: str) -> Sequence[Expectation] | None:
    """The catalog's prompts of a part, if the edit's address says that they are those it was evaluated with."""
    if concept is None or "combined" in edit.manifest["prune"]:
        return None
    manifest, sets = edit.manifest, edit.manifest["prompt_sets"]
    every = (*concept.evaluation.concept, *concept.evaluation.others)
    prompts = digest([[one.prompt.text, one.prompt.seed, one.labels] for one in every])
    shown = [(_report(edit)["evaluation"] or {}).get("judge", {}).get("sha256"), prompts]
    ranking = [manifest["model"]["key"], manifest["profile"], sets["reference"], sets["target"]]
    return _expected(concept, part) if digest([ranking, manifest["prune"], shown]) == edit.id else None


def _expected(concept: Concept, part: str) -> Sequence[Expectation]:
    return concept.evaluation.concept if part == "concept" else concept.evaluation.others


def _verdict(edit: Edit) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (_report(edit)["evaluation"] or {}).get("safety", {})
    return found


def _report(edit: Edit) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(edit.read("report.json"))
    return found


def _title(part: str) -> str:
    titles = {"concept": "Prompts of the concept", "others": "Prompts of everything else"}
    return titles.get(part, f"Prompts of {part}")


def _notes(found: int, shown: int, total: int) -> list[str]:
    notes = []
    if shown < total:
        notes.append(f"{shown:,} of {total:,} are shown, spread evenly over the list.")
    if found < shown:
        notes.append(f"{plural(shown - found, 'pair')} of images is not in the store any more.")
    return notes
