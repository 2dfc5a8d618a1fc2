"""Where a model's files are, whether they are safe to load, and their fingerprint. No torch: this comes first."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tasks.diffusion.spec import ModelSpec

UNSAFE_SUFFIXES = frozenset({".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle", ".py"})
WEIGHT_SUFFIX = ".safetensors"
CONTENT_SUFFIXES = frozenset({WEIGHT_SUFFIX, ".json", ".txt", ".model"})  # what decides what the model computes
ORIGIN = "single-file.json"  # in a folder that was imported: the sha256 and size of the checkpoint
VARIANT = re.compile(r"^[^.]+?(?:-\d+-of-\d+)?(?:\.([\w]+?)(?:-\d+-of-\d+)?)?\.safetensors$")  # diffusers' names


def resolve(model: ModelSpec) -> Path:
    """The model's local folder, checked; a hub id is looked up in the cache and then fetched at its revision.

    Raises ValueError in one sentence when there is no such model, or when it holds files that could run code.
    """
    folder = Path(model.path).expanduser()
    if folder.is_file() and folder.suffix.lower() in (WEIGHT_SUFFIX, *UNSAFE_SUFFIXES):
        raise ValueError(
            f"{folder} is a single file; make a folder of it first: conceptprune import {folder} --to FOLDER"
        )
    if not folder.exists():
        if model.path.startswith((".", "/", "~")) or model.path.count("/") != 1:
            raise ValueError(
                f"no model at {model.path}; give a folder that diffusers saved, or a hub id with --revision"
            )
        folder = _from_hub(model)
    check_folder(folder)
    _check_variant(folder, model.variant)
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


def weight_files(component: Path, variant: str | None = None) -> list[Path]:
    """The weights that a component's folder is loaded from: those of the variant, or else the plain ones."""
    files = sorted(component.glob(f"*{WEIGHT_SUFFIX}"))
    chosen = [path for path in files if _variant_of(path) == variant]
    return chosen or [path for path in files if _variant_of(path) is None]


def model_files(folder: Path, variant: str | None = None) -> list[Path]:
    """Every file of a model's folder but the weights of other variants, which are not loaded."""
    read = {path for component in folder.iterdir() if component.is_dir() for path in weight_files(component, variant)}
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path for path in files if path.suffix != WEIGHT_SUFFIX or path.parent.parent != folder or path in read]


def fingerprint(folder: Path, variant: str | None = None) -> str:
    """sha256 (hex) over the relative path and sha256 of every weight, config and tokenizer file of a model."""
    files = [path for path in model_files(folder, variant) if path.suffix in CONTENT_SUFFIXES]
    rows = [[path.relative_to(folder).as_posix(), file_digest(path)] for path in files]
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


def has_checker(folder: Path) -> bool:
    """Whether a pipeline's folder has a safety checker, with the processor that it needs."""
    return any((folder / "safety_checker").glob(f"*{WEIGHT_SUFFIX}")) and (folder / "feature_extractor").is_dir()


def licence(folder: Path) -> str | None:
    """What a model's folder says of its licence: of its card's front matter, or its licence file's name."""
    card = folder / "README.md"
    if card.is_file() and (found := re.search(r"^license:\s*(\S+)", card.read_text("utf-8", "replace"), re.MULTILINE)):
        return found[1]
    files = sorted(path.name for path in folder.iterdir() if path.name.lower().startswith(("licen", "copying")))
    return f"see {files[0]}" if files else None


def check_original(folder: Path, original: Path) -> None:
    """Raises ValueError unless a file is a checkpoint in safetensors, and the one that the folder was imported from.

    A folder that was not imported does not say; whoever reads the file then compares its weights.
    """
    if not original.is_file() or original.suffix.lower() != WEIGHT_SUFFIX:
        raise ValueError(
            f"{original} is no {WEIGHT_SUFFIX} file; pickled checkpoints are never loaded, convert it first"
        )
    if not (folder / ORIGIN).is_file():
        return
    wanted = json.loads((folder / ORIGIN).read_text("utf-8"))["sha256"]
    if (got := file_digest(original)) != wanted:
        raise ValueError(f"{original} ({got[:12]}) is not the file that {folder} was imported from ({wanted[:12]})")


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file; kept as long as its size and times stay."""
    stat = path.stat()
    return _sha256(path, (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino))


@lru_cache(maxsize=1024)
def _sha256(path: Path, version: tuple[int, ...]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_variant(folder: Path, variant: str | None) -> None:
    """Raises ValueError where nothing is of the variant that was asked for, or a component has only others."""
    components = sorted({path.parent for path in folder.glob(f"*/*{WEIGHT_SUFFIX}")})
    names = {_variant_of(path) for component in components for path in component.glob(f"*{WEIGHT_SUFFIX}")}
    if variant not in names or not all(weight_files(component, variant) for component in components):
        has = ", ".join(sorted(name or "plain" for name in names))
        raise ValueError(f"{folder} has weights of these variants: {has}; choose one with --variant, or none for plain")


def _variant_of(path: Path) -> str | None:
    found = VARIANT.match(path.name)
    return found[1] if found else None


def _from_hub(model: ModelSpec) -> Path:
    wanted = ["model_index.json", "README.md", "LICEN*", *(f"*/*{suffix}" for suffix in sorted(CONTENT_SUFFIXES))]
    if model.variant is None:
        return fetch(model.path, model.revision, wanted, ["*.fp16.*", "*.bf16.*", "*.non_ema.*"])  # gigabytes
    return fetch(model.path, model.revision, wanted, [])  # a component without the variant is loaded plain


def fetch(hub_id: str, revision: str | None, wanted: Sequence[str], unwanted: Sequence[str]) -> Path:
    """The folder of a hub's repository at a commit, files of some patterns. Raises ValueError in one sentence."""
    if revision is None:
        raise ValueError(f"{hub_id} is not a folder here; for a hub id give --revision with the commit's 40 hex digits")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(
            snapshot_download(hub_id, revision=revision, allow_patterns=list(wanted), ignore_patterns=list(unwanted))
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, OSError) as error:
        raise ValueError(
            f"could not fetch {hub_id} at {revision[:12]} ({type(error).__name__}); "
            "check the id, the revision and the network, or give a local folder"
        ) from error
