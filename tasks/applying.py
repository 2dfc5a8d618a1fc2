"""Edits on a loaded pipeline: for good, for the length of a `with` block, or coming and going.

    pipe = StableDiffusionPipeline.from_pretrained(folder)
    apply_edit(pipe, "store/edits/<model>/fox/<edit>")

    edits = Edits(pipe)      # one base model in memory for many concepts
    edits.use(fox, panda)    # both at once: what either of them prunes
    edits.use(panda)         # the fox is back
    edits.use()              # none: the exact bits of the base

The pipeline's weights must be those that the manifest names; a mask of one model never lands on another.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.edits import Edit, read_edit_at
from tasks.diffusion.pruned import Swap, check_base, patch, pruned


def apply_edit(pipe: Any, url: str | PathLike[str]) -> Edit:
    """Zero an edit's weights in a loaded pipeline, for good. Returns the edit.

    Raises ValueError if the pipeline's weights are not the manifest's, or if a file of the edit is damaged.
    """
    edit = read_edit_at(str(url))
    patch(pipe, edit.masks(), edit.manifest["model"]["weights"])
    return edit


def with_edit(pipe: Any, url: str | PathLike[str]) -> AbstractContextManager[Any]:
    """The pipeline with an edit while the block runs; then the exact bits as before.

    Raises ValueError as `apply_edit`.
    """
    edit = read_edit_at(str(url))
    return pruned(pipe, edit.masks(), edit.manifest["model"]["weights"])


class Edits:
    """A pipeline whose edits come and go: its weights are the base's, with what any edit in use prunes at zero.

    Whoever else changes weights of the pipeline meanwhile, changes them under it: make a new one then.
    """

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe
        self.active: tuple[Edit, ...] = ()
        self._swap = Swap(pipe)
        self._checked: set[tuple[str, frozenset[str]]] = set()  # fingerprints that the base has been held to

    def use(self, *urls: str | PathLike[str]) -> tuple[Edit, ...]:
        """Make these the edits in use, in place of those that were; their order changes nothing. Returns them.

        Raises ValueError as `apply_edit`; the edits that were in use then stay.
        """
        edits = tuple(read_edit_at(str(url)) for url in urls)
        masks = [edit.masks() for edit in edits]
        for edit, own in zip(edits, masks, strict=True):
            self._check(edit, frozenset(name.partition(".")[0] for name in own))
        union: dict[str, NDArray[np.bool_]] = {}
        for own in masks:
            for name, mask in own.items():
                union[name] = union[name] | mask if name in union else mask
        self._swap.to(union)
        self.active = edits
        return edits

    def _check(self, edit: Edit, components: frozenset[str]) -> None:
        expected = str(edit.manifest["model"]["weights"])
        if (expected, components) in self._checked:
            return
        with self._swap.base():
            check_base(self.pipe, expected, components)
        self._checked.add((expected, components))
