"""Makes a pipeline's folder of a single-file checkpoint, as A1111 and ComfyUI use them."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from storage.patching import tensors_of
from tasks.diffusion.headers import family_in
from tasks.diffusion.sources import ORIGIN, check_original, fetch, file_digest
from tasks.diffusion.spec import ModelSpec

CONFIGS = ("model_index.json", "*/*.json", "*/*.txt", "*/*.model")


def check_import(file: Path, to: Path, config: ModelSpec) -> Path:
    """The folder of the configs to import with. Raises ValueError in one sentence for bad input, before torch loads."""
    check_original(to, file)
    tensors_of(file)
    if str(to.parts[0] if to.parts else "").endswith(":"):
        raise ValueError(f"{to} is no local folder; models are local, give one with --to")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ValueError(f"{to} is there already; give a new folder with --to")
    folder = Path(config.path).expanduser()
    if not folder.is_dir():
        folder = fetch(config.path, config.revision, CONFIGS, ())
    if not (folder / "model_index.json").is_file():
        raise ValueError(f"{folder} is not a diffusers pipeline: expected a folder with model_index.json")
    family_in(folder)
    return folder


def import_single_file(file: Path, to: Path, config: Path) -> dict[str, Any]:
    """Write the pipeline's folder, weights in the checkpoint's own precision. Returns its origin: {"sha256", "size"}.

    It is in place when it is whole, or not at all. Raises ValueError if the checkpoint is not of the configs' model.
    """
    from tasks.diffusion.converting import convert

    origin = {"sha256": file_digest(file), "size": file.stat().st_size}
    to.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{to.name[:40]}.", suffix=".tmp", dir=to.parent))  # nobody else's
    try:
        convert(file, config, draft, {entry["dtype"] for entry in tensors_of(file).values()})
        (draft / ORIGIN).write_text(json.dumps(origin, indent=2) + "\n", "utf-8")
        draft.chmod(0o755)
        if to.is_dir():
            to.rmdir()  # empty
        draft.rename(to)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return origin
