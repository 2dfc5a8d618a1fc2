"""Edits on a loaded pipeline: for good, or for the length of a `with` block.

    pipe = StableDiffusionPipeline.from_pretrained(folder)
    apply_edit(pipe, "store/edits/<model>/fox/<edit>")

The pipeline's weights must be those that the manifest names; a mask of one model never lands on another.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from os import PathLike
from typing import Any

from storage.edits import Edit, read_edit_at
from tasks.diffusion.pruned import patch, pruned


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
