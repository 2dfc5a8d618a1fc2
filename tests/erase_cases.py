"""A tiny model, a catalog and a judge of random weights, and the command line that erases with them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from safetensors.numpy import load_file

from flows.config import Request
from tests import oracle, tiny

ROOT = Path(__file__).resolve().parents[1]

CATALOG = """
format = 1
name = "tiny"

[capture]
steps = 4
window = 3
guidance = 4
height = 32
width = 32

[prune]
sparsity = "0.2"
t_hat = 2

[words.object]
cat = "a cat"
dog = "a dog"
fox = "a fox"
rose = "a rose"

[words.style]
apple = "apple"
photo = "photo"
of = "of"

[recipes.object]
reference = "{object} in style of {style}"
target = "{concept} in style of {style}"
pairs = 3
concept = ["{concept}"]
others = ["{object} in style of {style}"]
concept_prompts = 3
others_prompts = 4

[recipes.style]
reference = "{object}"
target = "{object} in style of {concept}"
pairs = 3
concept = ["{object} in style of {concept}"]
others = ["{object} in style of {style}"]
concept_prompts = 2
others_prompts = 2

[[concepts]]
slug = "fox"
kind = "object"

[[concepts]]
slug = "apple"
kind = "style"

[[concepts]]
slug = "photo"
kind = "style"

[[concepts]]
slug = "rose"
kind = "uneven"
words = "a rose"
reference = ["a cat", "a dog", "a fox"]
target = ["a rose", "the rose"]
"""

LABELS = ["object:cat", "object:dog", "object:fox", "object:rose", "style:apple", "style:photo", "style:of"]


@dataclass(frozen=True)
class Case:
    """Where the model, the catalog and the judge lie, and an empty place for stores."""

    folder: Path

    @property
    def model(self) -> Path:
        return self.folder / "tiny-model"

    @property
    def catalog(self) -> Path:
        return self.folder / "tiny.toml"

    @property
    def judge(self) -> Path:
        return self.folder / "judge"

    def request(self, store: Path, concept: str = "fox", **options: Any) -> Request:
        """A request as the command line makes it."""
        paths = {name: str(getattr(self, name)) for name in ("model", "catalog", "judge")}
        return Request(**{"concept": concept, "store": str(store), "device": "cpu", **paths, **options})

    def options(self, store: Path) -> list[str]:
        """The command line's options for this case."""
        paths = {"store": store, "model": self.model, "catalog": self.catalog, "judge": self.judge}
        return [word for name, path in paths.items() for word in (f"--{name}", str(path))]


def build(folder: Path) -> Case:
    """Save the model, the catalog and the judge."""
    case = Case(folder)
    tiny.save(case.model)
    case.catalog.write_text(CATALOG, "utf-8")
    save_judge(case.judge)
    return case


def save_judge(folder: Path, seed: int = 0) -> None:
    """A classifier of random weights that knows the catalog's labels."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = ResNetConfig(
            embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", id2label=dict(enumerate(LABELS))
        )
        ResNetForImageClassification(config).save_pretrained(folder)


def start(*words: object, **environment: str) -> subprocess.Popen[str]:
    """Start the command line in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*words: object, limit: float = 240, **environment: str) -> tuple[int, str, str]:
    """Run the command line in a process of its own, for `limit` seconds at most: exit code, stdout, stderr."""
    process = start(*words, **environment)
    out, err = process.communicate(timeout=limit)
    return process.returncode, out, err


def files(folder: Path) -> dict[str, tuple[str, int]]:
    """sha256 and time of change of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def manifest(edit: str | Path) -> dict[str, Any]:
    """An edit's manifest, whose every file was checked against its sha256 and size, and which names all there are."""
    folder = Path(edit)
    found = json.loads((folder / "manifest.json").read_bytes())
    there = {name for name in files(folder) if name != "manifest.json"}
    assert set(found["files"]) == there
    for name, entry in found["files"].items():
        data = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    return dict(found)


def masks(edit: str | Path) -> dict[str, np.ndarray]:
    """{site: mask} of mask.safetensors, read as the format's description says."""
    from safetensors import safe_open

    with safe_open(Path(edit) / "mask.safetensors", "numpy") as file:
        widths = json.loads(file.metadata()["widths"])
        return {
            site: np.unpackbits(file.get_tensor(site), axis=1, count=widths[site]).astype(bool) for site in file.keys()
        }


def weights(model: Path) -> dict[str, np.ndarray]:
    """{<site>.weight: weight} of the model's folder, without any code of ours."""
    loaded = load_file(model / "unet" / "diffusion_pytorch_model.safetensors")
    return {f"unet.{name}": weight for name, weight in loaded.items() if name.endswith(".ff.net.2.weight")}


def recomputed(store: Path, case: Case, found: dict[str, Any]) -> dict[str, np.ndarray]:
    """The masks that an edit's manifest promises, by plain loops over the stored energies and the model's weights."""
    trees = {
        role: xr.open_datatree(
            str(store / "activations" / found["profile"] / f"{digest}.zarr"),
            engine="zarr",
            consolidated=False,
            chunks={},
        )
        for role, digest in found["prompt_sets"].items()
    }
    prune = found["prune"]
    out = {}
    for name, weight in weights(case.model).items():
        site = name.removesuffix(".weight")
        energies = {
            role: tree[site]["energy"].transpose("prompt", "step", "branch", "neuron") for role, tree in trees.items()
        }
        if "prompts" in prune:
            slots = oracle.slots(prune["prompts"])
            energies = {role: energy.isel(prompt=slots) for role, energy in energies.items()}
        names = [str(branch) for branch in trees["target"].coords["branch"].values]
        branches = [i for i, branch in enumerate(names) if prune["branch"] in ("both", branch)]
        mean = energies["target"].sizes["prompt"] != energies["reference"].sizes["prompt"]
        norms = {role: oracle.norms(energy.values, branches, mean) for role, energy in energies.items()}
        out[site] = np.array(
            oracle.mask(
                weight, norms["target"], norms["reference"], prune["sparsity"], prune["t_hat"], str(prune["vote_share"])
            )
        )
    return out
