"""Which edits a root holds: of which models and concepts, and which of them counts."""

from __future__ import annotations

from urllib.parse import unquote

from storage.edits import EDIT_ID, MANIFEST, Edit, latest, read_edit, read_edit_at
from storage.names import escape
from storage.parallel import at_once
from storage.roots import Root, RootLike


def list_edits(root: RootLike, model: str | None = None, concept: str | None = None) -> list[Edit]:
    """The published edits, of all models and concepts unless told, oldest first. Raises CorruptEdit."""
    folder = Root(root).path("edits")
    found = [
        folder / own / slug / edit
        for own in ([escape(model)] if model is not None else folder.folders())
        for slug in ([escape(concept)] if concept is not None else (folder / own).folders())
        for edit in (folder / own / slug).folders()
        if EDIT_ID.fullmatch(edit)
    ]
    published = at_once(lambda place: read_edit_at(place.url) if (place / MANIFEST).exists() else None, found)
    edits = [edit for edit in published if edit is not None]
    return sorted(edits, key=lambda edit: (str(edit.manifest["created"]), str(edit.path)))


def list_concepts(root: RootLike) -> list[str]:
    """The slugs of the concepts that have edits, of any model."""
    folder = Root(root).path("edits")
    return sorted({unquote(slug) for model in folder.folders() for slug in (folder / model).folders()})


def latest_edit(root: RootLike, concept: str) -> Edit | None:
    """The edit of a concept that counts: the one that the newest model's pointer names; None if there is no edit.

    Raises CorruptEdit.
    """
    models = Root(root).path("edits").folders()
    pointers = [(unquote(model), latest(root, unquote(model), concept)) for model in models]
    edits = [read_edit(root, model, concept, edit) for model, edit in pointers if edit is not None]
    edits = edits or list_edits(root, concept=concept)  # a run that was killed before it moved the pointer
    return max(edits, key=lambda edit: str(edit.manifest["created"]), default=None)


def find_edit(root: RootLike, concept: str, edit: str = "latest") -> Edit:
    """An edit of a concept by its digest, of any model, or the one that counts. Raises ValueError if there is none."""
    found = latest_edit(root, concept)
    if found is None:
        where = Root(root).url
        raise ValueError(f"there is no edit of {concept} in {where}; run conceptprune erase {concept} first")
    if edit in ("latest", found.id):
        return found
    edits = {one.id: one for one in list_edits(root, concept=concept)}
    if edit not in edits:
        raise ValueError(f"{concept} has no edit {edit} in {Root(root).url}; it has {', '.join(edits)}")
    return edits[edit]


def edit_places(root: RootLike) -> list[tuple[str, str, str]]:
    """(model, concept, edit) of every published edit, damaged or not; of a pointer too, with "latest" for the edit."""
    found = []
    folder = Root(root).path("edits")
    for model in folder.folders():
        for slug in (folder / model).folders():
            place = folder / model / slug
            edits = [name for name in place.folders() if EDIT_ID.fullmatch(name) and (place / name / MANIFEST).exists()]
            pointed = ["latest"] if (place / "refs" / "latest.json").exists() else []
            found += [(unquote(model), unquote(slug), edit) for edit in [*edits, *pointed]]
    return found
