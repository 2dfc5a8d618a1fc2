"""The arrows between the rooms: who may import whom, and what must stay out of the light ones."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("flows", "tasks", "storage", "demo")
FOLDERS = ("concepts", "diffusion", "pruning", "metrics", "attacks", "pages")  # below tasks/: plain Python, no @task

# What each room may import of ours. "tasks" is tasks/*.py alone; "spec" is tasks/diffusion/spec.py and slots.py.
MAY_IMPORT = {
    "flows": {"flows", "tasks", "storage", "tasks.concepts", "spec", "demo"},  # demo: where the bundled model lies
    "tasks": {"tasks", "storage", "spec", *(f"tasks.{folder}" for folder in FOLDERS)},
    "tasks.concepts": {"tasks.concepts", "spec"},
    "tasks.diffusion": {"tasks.diffusion", "tasks.concepts", "spec"},
    "tasks.pruning": {"tasks.pruning", "tasks.concepts", "spec"},
    "tasks.metrics": {"tasks.metrics", "tasks.concepts", "spec"},
    "tasks.attacks": {"tasks.attacks", "tasks.concepts", "spec"},
    "tasks.pages": {"tasks.pages", "tasks.concepts", "spec"},
    "spec": {"spec"},
    "storage": {"storage", "tasks.concepts", "spec"},
    "demo": {"demo"},
}

TORCH = {"torch", "diffusers", "transformers", "accelerate", "safetensors.torch"}
ARRAYS = {"numpy", "numba", "xarray", "dask", "distributed", "zarr"}
# What each room must not import of others'.
MUST_NOT_IMPORT = {
    "flows": TORCH | ARRAYS,
    "tasks": set(),
    "tasks.concepts": TORCH | {"prefect"},
    "tasks.diffusion": {"prefect"},
    "tasks.pruning": TORCH | {"prefect", "zarr"},
    "tasks.metrics": {"prefect"},
    "tasks.attacks": {"prefect"},
    "tasks.pages": TORCH | ARRAYS | {"prefect"},
    "spec": TORCH | ARRAYS | {"prefect"},
    "storage": TORCH | {"prefect"},
    "demo": {"prefect"},
}

# What only storage/urls.py may say. A help text may show what a URL looks like: s3://bucket/..., or s3://...
S3 = re.compile(r"\bs3\b(?!://(bucket/|\.\.\.))|s3fs|boto|obstore|aiohttp", re.IGNORECASE)

LIGHT = (
    "storage",
    "tasks.concepts",
    "tasks.pruning",
    "tasks.diffusion.spec",
    "tasks.diffusion.slots",
    "tasks.attacks.genetic",
    "tasks.attacks.hiding",
    "tasks.attacks.paraphrases",
    "tasks.attacks.revival",
)  # these never import torch


def room(name: str) -> str:
    """The room of a module of ours, or of a name in one."""
    parts = name.split(".")
    if parts[:3] in (["tasks", "diffusion", "spec"], ["tasks", "diffusion", "slots"]):
        return "spec"
    if parts[0] == "tasks" and len(parts) > 1 and parts[1] in FOLDERS:
        return f"tasks.{parts[1]}"
    return parts[0]


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, path: Path) -> list[str]:
    """Every name that a file imports, anywhere in it, in full: "tasks.diffusion.spec.NeuronSite"."""
    package = list(path.parent.parts)
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = [*start, *(node.module or "").split(".")] if node.module else start
            found += [".".join([*base, alias.name]) for alias in node.names]
    return found


def wrong_imports(source: str, path: Path) -> list[str]:
    """What a file at this path (relative to the root) imports although its room may not."""
    here = room(module_name(path))
    wrong = []
    for name in imports(source, path):
        if name.split(".")[0] in PACKAGES:
            refused = room(name) not in MAY_IMPORT[here]
        else:
            refused = any(f"{name}.".startswith(f"{other}.") for other in MUST_NOT_IMPORT[here])
        if refused:
            wrong.append(f"{path.as_posix()} imports {name}")
    return wrong


def modules() -> list[Path]:
    return sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=str)
def test_imports_follow_the_arrows(path: Path) -> None:
    assert wrong_imports((ROOT / path).read_text("utf-8"), path) == []


def test_only_urls_mentions_s3() -> None:
    assert [
        path.as_posix()
        for path in modules()
        if path != Path("storage/urls.py") and S3.search((ROOT / path).read_text("utf-8"))
    ] == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("import s3fs", True),
        ("from botocore.exceptions import ClientError", True),
        ('if url.startswith("s3://"):', True),
        ('if scheme == "s3":', True),
        ('help="a directory or s3://bucket/prefix"', False),
        ("ActivationStore(...)  # or s3://...", False),
        ("objects3 = news3", False),
    ],
)
def test_what_counts_as_mentioning_s3(line: str, told: bool) -> None:
    assert bool(S3.search(line)) == told


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("flows/erase.py", "from tasks import capture"),
        ("flows/erase.py", "from tasks.capture import capture_set"),
        ("flows/erase.py", "from tasks.diffusion.spec import PruneSpec"),
        ("flows/erase.py", "import prefect"),
        ("flows/erase.py", "from storage import edits"),
        ("tasks/rank.py", "from tasks.pruning.rankings import rank_site"),
        ("tasks/rank.py", "from storage import rankings"),
        ("tasks/pruning/masks.py", "from tasks.diffusion import spec"),
        ("tasks/pruning/masks.py", "from .norms import column_norms"),
        ("tasks/diffusion/sites.py", "from .spec import NeuronSite"),
        ("storage/models.py", "from tasks.diffusion.spec import NeuronSite"),
        ("tasks/attack.py", "from tasks.attacks.revival import complete"),
        ("tasks/attacks/tokens.py", "from tasks.attacks.denoising import losses"),
    ],
)
def test_these_are_allowed(path: str, line: str) -> None:
    assert wrong_imports(line, Path(path)) == []


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("flows/erase.py", "import torch.nn as nn"),
        ("flows/erase.py", "from tasks.pruning import masks"),
        ("flows/erase.py", "from tasks import pruning"),
        ("tasks/rank.py", "from flows.config import Settings"),
        ("tasks/pruning/masks.py", "from tasks.diffusion import NeuronSite"),
        ("tasks/pruning/masks.py", "from ..metrics import accuracy"),
        ("tasks/pruning/masks.py", "def f():\n    import prefect"),
        ("tasks/pruning/masks.py", "import storage"),
        ("tasks/diffusion/spec.py", "import torch"),
        ("tasks/metrics/accuracy.py", "from tasks.pruning.masks import mask"),
        ("tasks/diffusion/pruned.py", "from tasks import capture"),
        ("storage/edits.py", "from tasks.diffusion.pruned import pruned"),
        ("storage/edits.py", "from safetensors.torch import load_file"),
        ("storage/__init__.py", "from flows import config"),
        ("tasks/attacks/tokens.py", "from tasks.diffusion.pipelines import generate"),
        ("tasks/attacks/genetic.py", "from tasks.metrics import classifier"),
        ("tasks/attacks/revival.py", "from storage.edits import read_edit_at"),
        ("tasks/attacks/revival.py", "import prefect"),
    ],
)
def test_these_are_refused(path: str, line: str) -> None:
    assert wrong_imports(line, Path(path)) != []


def run_python(code: str) -> None:
    """Run code in a new process; it fails the test when it exits with anything but 0."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


NO_TORCH = """
import sys
found = sorted({"torch", "diffusers", "transformers"} & set(sys.modules))
assert not found, found
"""


@pytest.mark.parametrize("name", LIGHT)
def test_light_modules_do_not_import_torch(name: str) -> None:
    path = ROOT.joinpath(*name.split("."))
    inside = [module_name(file.relative_to(ROOT)) for file in sorted(path.rglob("*.py"))]
    if not inside and not path.with_suffix(".py").exists():
        pytest.skip(f"there is no {name} yet")
    run_python(f"import {', '.join(inside or [name])}\n{NO_TORCH}")


def test_help_does_not_import_torch() -> None:
    if not (ROOT / "flows/cli.py").exists():
        pytest.skip("there is no flows/cli.py yet")
    run_python(
        "import sys\n"
        "from flows.cli import main\n"
        "sys.argv = ['conceptprune', '--help']\n"
        "try:\n"
        "    code = main()\n"
        "except SystemExit as stop:\n"
        "    code = stop.code\n"
        "assert not code, code\n" + NO_TORCH
    )
