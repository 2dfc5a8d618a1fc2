"""Ways to run a model on less memory: the same energies, edits that come and go, files of another precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload_with_hook
from diffusers import DiffusionPipeline

from tasks.concepts.prompts import Prompt
from tasks.diffusion import pipelines
from tasks.diffusion.headers import read_card, read_sites
from tasks.diffusion.pipelines import generate, load
from tasks.diffusion.pruned import pruned, weights_fingerprint
from tasks.diffusion.recorder import record
from tasks.diffusion.spec import CaptureSpec, ModelSpec
from tests import families

SPEC = CaptureSpec(steps=3, guidance=4, height=64, width=64)
PROMPTS = [Prompt("a fox", 0), Prompt("a cat in style of apple", 1)]
KINDS = ("ffn", "attn_v", "text")


def model_offloaded(pipe: Any) -> None:
    """The hooks that enable_model_cpu_offload sets, which itself insists on a GPU."""
    for component in ("text_encoder", "unet", "vae"):
        cpu_offload_with_hook(getattr(pipe, component), torch.device("cpu"))


def group_offloaded(pipe: Any) -> None:
    pipe.enable_group_offload(onload_device=torch.device("cpu"), offload_type="leaf_level")


def observe(pipe: Any, sites: Any) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    with record(pipe, sites, 2) as recording:
        images = generate(pipe, PROMPTS, SPEC)
    return recording.energies(), [np.asarray(image).astype(int) for image in images]


@pytest.mark.parametrize("way", [model_offloaded, group_offloaded])
def test_offloading_changes_nothing(family_folders: dict[str, Path], way: Callable[[Any], None]) -> None:
    sites = read_sites(family_folders["sd1"], KINDS)
    plain, offloaded = families.build("sd1"), families.build("sd1")
    way(offloaded)
    wanted, images = observe(plain, sites)
    found, drawn = observe(offloaded, sites)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    assert all(np.array_equal(one, other) for one, other in zip(images, drawn, strict=True))
    rng = np.random.default_rng(0)
    masks = {site.name: rng.random((site.rows, site.inputs)) < 0.5 for site in sites}
    base = weights_fingerprint(plain, ["text_encoder", "unet"])
    with pruned(plain, masks, base), pruned(offloaded, masks, base):
        wanted, images = observe(plain, sites)
        found, drawn = observe(offloaded, sites)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    assert all(np.array_equal(one, other) for one, other in zip(images, drawn, strict=True))
    assert weights_fingerprint(offloaded, ["text_encoder", "unet"]) == base


@pytest.mark.families
@pytest.mark.parametrize("family", families.FAMILIES)
def test_slices_give_the_same_energies_but_for_rounding(family_folders: dict[str, Path], family: str) -> None:
    sites = [site for site in read_sites(family_folders[family], ("ffn",))]
    folder = str(family_folders[family])
    branches = 1 if family == "flux" else 2
    found = []
    for slicing in (False, True):
        pipe = load(ModelSpec(folder, device="cpu", slicing=slicing))
        with record(pipe, sites, branches) as recording:
            generate(pipe, PROMPTS, SPEC)
        found.append(recording.energies())
    for name, energies in found[0].items():
        np.testing.assert_allclose(found[1][name], energies, rtol=1e-3, atol=1e-4, err_msg=name)


def test_a_variants_files_are_loaded_in_their_precision(tmp_path: Path) -> None:
    families.build("sd1").save_pretrained(tmp_path)
    families.build("sd1", seed=1).to(torch.float16).save_pretrained(tmp_path, variant="fp16")
    plain, half = (ModelSpec(str(tmp_path), device="cpu", variant=variant) for variant in (None, "fp16"))
    first, second = (weights_fingerprint(load(spec), ["unet"]) for spec in (plain, half))
    assert first == weights_fingerprint(families.build("sd1"), ["unet"])
    assert second == weights_fingerprint(families.build("sd1", seed=1).to(torch.float16), ["unet"])
    cards = [read_card(spec, KINDS) for spec in (plain, half)]
    assert cards[0].sites == cards[1].sites
    assert cards[0].fingerprint != cards[1].fingerprint
    assert cards[1].variant == "fp16"


def test_slicing_reaches_attention_and_decoder(family_folders: dict[str, Path]) -> None:
    for slicing in (False, True):
        pipe = load(ModelSpec(str(family_folders["sd1"]), device="cpu", slicing=slicing))
        kinds = {type(processor).__name__ for processor in pipe.unet.attn_processors.values()}
        assert any("Sliced" in kind for kind in kinds) == slicing


@pytest.mark.parametrize(
    ("offload", "method"), [("model", "enable_model_cpu_offload"), ("group", "enable_group_offload")]
)
def test_offload_is_asked_of_the_pipeline(
    family_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, offload: str, method: str
) -> None:
    asked: list[tuple[str, Any]] = []
    monkeypatch.setattr(pipelines, "choose_device", lambda wish: "cuda")
    for name in ("enable_model_cpu_offload", "enable_group_offload"):
        monkeypatch.setattr(
            DiffusionPipeline, name, lambda self, name=name, **given: asked.append((name, list(given.values())[0]))
        )
    pipelines._load.cache_clear()
    load(ModelSpec(str(family_folders["sd1"]), device="cuda", offload=offload))
    pipelines._load.cache_clear()
    assert [(name, str(device)) for name, device in asked] == [(method, "cuda")]


def test_offloading_without_a_gpu_is_refused(family_folders: dict[str, Path]) -> None:
    for offload in ("model", "group"):
        with pytest.raises(
            ValueError, match=rf"offload {offload} is for a GPU, and the device is cpu; leave --offload"
        ):
            load(ModelSpec(str(family_folders["sd1"]), device="cpu", offload=offload))
