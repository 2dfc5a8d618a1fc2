"""Where a model's files are, whether they are safe to load, and their fingerprint. No torch: this comes first."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from tasks.diffusion.spec import ModelSpec

UNSAFE_SUFFIXES = frozenset({".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle", ".py"})
WEIGHT_SUFFIX = ".safetensors"
CONTENT_SUFFIXES = frozenset({WEIGHT_SUFFIX, ".json", ".txt", ".model"})  # what decides what the model computes


def resolve(model: ModelSpec) -> Path:
    """The model's local folder, checked; a hub id is looked up in the cache and then fetched at its revision.

    Raises ValueError in one sentence when there is no such model, or when it holds files that could run code.
    """
    folder = Path(model.path).expanduser()
    if not folder.exists():
        if model.path.startswith((".", "/", "~")) or model.path.count("/") != 1:
            raise ValueError(
                f"no model at {model.path}; give a folder that diffusers saved, or a hub id with --revision"
            )
        folder = _from_hub(model)
    check_folder(folder)
    return folder


def check_folder(folder: Path) -> None:
    """Raises ValueError unless `folder` is a diffusers pipeline of safetensors alone, without code or pickles."""
    if not folder.is_dir() or not (folder / "model_index.json").is_file():
        raise ValueError(f"{folder} is not a diffusers pipeline: expected a folder with model_index.json")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    unsafe = [str(path.relative_to(folder)) for path in files if path.suffix.lower() in UNSAFE_SUFFIXES]
    if unsafe:
        raise ValueError(
            f"{folder} holds {', '.join(unsafe[:3])}: pickles and code are never loaded; "
            "save the model with safe_serialization=True and remove such files"
        )
    if not any(path.suffix == WEIGHT_SUFFIX for path in files):
        raise ValueError(f"{folder} holds no .safetensors file; save the model with safe_serialization=True")


def fingerprint(folder: Path) -> str:
    """sha256 (hex) over the relative path and sha256 of every weight, config and tokenizer file of a model."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix in CONTENT_SUFFIXES]
    rows = [[path.relative_to(folder).as_posix(), _digest_of(path)] for path in files]
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


def _digest_of(path: Path) -> str:
    stat = path.stat()
    return _sha256(path, (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino))


@lru_cache(maxsize=1024)
def _sha256(path: Path, version: tuple[int, ...]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_hub(model: ModelSpec) -> Path:
    if model.revision is None:
        raise ValueError(
            f"{model.path} is not a folder here; for a hub id give --revision with the commit's 40 hex digits"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    wanted = ["model_index.json", *(f"*/*{suffix}" for suffix in sorted(CONTENT_SUFFIXES))]
    unwanted = ["*.fp16.*", "*.non_ema.*", "safety_checker/*"]  # gigabytes that `load` does not read
    try:
        return Path(
            snapshot_download(model.path, revision=model.revision, allow_patterns=wanted, ignore_patterns=unwanted)
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, OSError) as error:
        raise ValueError(
            f"could not fetch {model.path} at {model.revision[:12]} ({type(error).__name__}); "
            "check the id, the revision and the network, or give a local folder"
        ) from error
