"""Which other concepts an edit touches, from the store alone."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from storage.listing import find_edit
from storage.roots import Root
from tasks.collateral import collateral


def find_collateral(store: str, concept: str, edit: str) -> dict[str, Any]:
    """What an edit takes from the store's other concepts, as JSON values. Raises ValueError if there is no edit."""
    Root(store).check()
    found = find_edit(store, concept, edit)
    own, *others = (asdict(row) for row in collateral(Root(store).url, found))
    return {"concept": concept, "edit": found.id, "own": own, "others": others}
