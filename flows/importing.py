"""Single-file checkpoints made into pipelines' folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.config import Common
from tasks.importing import check_import, import_single_file


def import_model(file: Path, to: Path, config: str, revision: str | None) -> dict[str, Any]:
    """Import a checkpoint. Returns {"model", "sha256", "size"}. Raises ValueError in one sentence for bad input."""
    configs = check_import(file, to, Common(model=config, revision=revision).model_spec)
    return {"model": str(to), **import_single_file(file, to, configs)}
