"""Published edits: opened by the tools that others use, and nothing changed that the edit does not change."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from safetensors import safe_open
from typer.testing import Result

from flows.erase_concept import erase
from flows.plan import make_plan
from flows.steps import Steps
from storage.edits import Edit, read_edit_at
from storage.patching import copy_zeroed
from storage.roots import place_at
from tasks.applying import with_edit
from tasks.concepts.prompts import Prompt
from tasks.diffusion.pipelines import generate
from tasks.diffusion.spec import CaptureSpec
from tests.erase_cases import Case
from tests.storage_cases import flip
from tests.test_flows_cli import cli, refused

SPEC = CaptureSpec(steps=3, height=32, width=32)
PROMPTS = [Prompt("a fox", 0), Prompt("a cat in style of apple", 1)]


@pytest.fixture(scope="module")
def edit(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Edit:
    """An edit of two components, sealed."""
    store = tmp_path_factory.mktemp("store")
    asked = case.request(store, evaluate=False, sparsity="0.5", kinds="ffn,text")
    return read_edit_at(erase(make_plan(asked), Steps()).url)


def publish(case: Case, edit: Edit, form: str, to: object, *words: object) -> Result:
    store = edit.path.url.partition("/edits/")[0]
    places = ["--to", to, "--store", store, "--model", case.model]
    return cli("publish", "fox", "--form", form, *places, "--no-prefect", *words)


def digests(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}  # fmt: skip


def test_a_published_pipeline_draws_what_the_patched_one_draws(case: Case, edit: Edit, tmp_path: Path) -> None:
    result = publish(case, edit, "diffusers", tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    published = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out", local_files_only=True)
    base = diffusers.DiffusionPipeline.from_pretrained(case.model, local_files_only=True)
    for pipe in (published, base):
        pipe.set_progress_bar_config(disable=True)
    with with_edit(base, edit.path):
        wanted = generate(base, PROMPTS, SPEC)
    for one, other in zip(wanted, generate(published, PROMPTS, SPEC), strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))

    before, after = digests(case.model), digests(tmp_path / "out")
    card = after.pop("conceptprune.json")
    assert card
    assert json.loads(result.stdout)["files"] == [*after, "conceptprune.json"]
    changed = {name for name in before if before[name] != after[name]}
    assert before.keys() == after.keys()
    assert {name.partition("/")[0] for name in changed} == {"unet", "text_encoder"}
    masks = edit.masks()
    for name in changed:  # byte for byte, but for what is masked
        with safe_open(case.model / name, "pt") as old, safe_open(tmp_path / "out" / name, "pt") as new:
            assert old.metadata() == new.metadata()
            for tensor in old.keys():
                mask = masks.get(f"{name.partition('/')[0]}.{tensor.removesuffix('.weight')}")
                kept = old.get_tensor(tensor)
                if mask is not None and tensor.endswith(".weight"):
                    kept = kept.masked_fill(torch.from_numpy(mask), 0)
                assert torch.equal(new.get_tensor(tensor), kept), tensor


@pytest.mark.parametrize(("form", "name"), [("mask", "mask.safetensors"), ("delta", "delta.safetensors")])
def test_a_mask_or_delta_goes_with_its_card(case: Case, edit: Edit, root: str, form: str, name: str) -> None:
    result = publish(case, edit, form, f"{root}/out")
    assert result.exit_code == 0, result.output
    assert "this is no proof of removal" in result.stdout
    assert place_at(f"{root}/out/{name}").get() == edit.read(name)
    card = json.loads(place_at(f"{root}/out/conceptprune.json").get() or b"")
    assert {key: card[key] for key in edit.manifest} == edit.manifest
    assert {name: site["pruned"] for name, site in card["sites"].items()} == {
        name: mask.sum() for name, mask in edit.masks().items()
    }
    assert (card["form"], card["base_licence"]) == (form, None)
    assert "reveals what was pruned" in card["warning"]
    assert publish(case, edit, form, f"{root}/out").exit_code == 0  # again changes nothing


def test_the_licence_of_the_base_is_on_the_card(case: Case, edit: Edit, tmp_path: Path) -> None:
    model = Path(shutil.copytree(case.model, tmp_path / case.model.name))
    (model / "README.md").write_text("---\nlicense: openrail++\ntags: []\n---\n# A model\n", "utf-8")
    store = edit.path.url.partition("/edits/")[0]
    words = ["publish", "fox", "--form", "diffusers", "--to", tmp_path / "out", "--store", store, "--model", model]
    assert cli(*words, "--no-prefect").exit_code == 0
    assert json.loads((tmp_path / "out" / "conceptprune.json").read_bytes())["base_licence"] == "openrail++"
    assert (tmp_path / "out" / "README.md").read_bytes() == (model / "README.md").read_bytes()


def test_what_cannot_be_published_is_refused(case: Case, edit: Edit, tmp_path: Path) -> None:
    refused(
        publish(case, edit, "onnx", tmp_path / "out"), "form is 'onnx': Input should be 'mask', 'delta', 'diffusers' or"
    )
    refused(
        publish(case, edit, "mask", tmp_path / "out", "--edit", "12345678"), r"fox has no edit 12345678 in \S+; it has"
    )
    other = Path(shutil.copytree(case.model, tmp_path / "other"))
    (other / "scheduler" / "scheduler_config.json").write_text(
        (other / "scheduler" / "scheduler_config.json").read_text("utf-8") + " ", "utf-8"
    )
    store = edit.path.url.partition("/edits/")[0]
    words = ["publish", "fox", "--form", "diffusers", "--to", tmp_path / "out", "--store", store, "--model", other]
    refused(cli(*words, "--no-prefect"), "is not the model that the edit was made for, .*; give that one with --model")
    assert not (tmp_path / "out").exists()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mask.safetensors").write_bytes(b"another")
    refused(publish(case, edit, "mask", tmp_path / "taken"), "is there already and differs; give an empty place")


def test_a_damaged_edit_is_not_published(case: Case, edit: Edit, tmp_path: Path) -> None:
    copy, (store, _, rest) = tmp_path / "store", edit.path.url.partition("/edits/")
    shutil.copytree(store, copy)
    flip(place_at(f"{copy}/edits/{rest}/mask.safetensors"))
    words = ["publish", "fox", "--form", "mask", "--to", tmp_path / "out", "--store", copy, "--model", case.model]
    result = cli(*words, "--no-prefect")
    assert result.exit_code == 1
    assert "wrong sha256" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_zeros_are_zeros_in_every_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import save_file

    weight, other = torch.randn(5, 7).to(dtype), torch.randn(3).to(dtype)
    save_file({"a.weight": weight, "b": other}, tmp_path / "base.safetensors", {"format": "pt"})
    mask = np.random.default_rng(0).random((5, 7)) < 0.4
    copy_zeroed(tmp_path / "base.safetensors", tmp_path / "new.safetensors", {"a.weight": mask})
    with safe_open(tmp_path / "new.safetensors", "pt") as new:
        assert torch.equal(new.get_tensor("a.weight"), weight.masked_fill(torch.from_numpy(mask), 0))
        assert torch.equal(new.get_tensor("b"), other)
    with pytest.raises(ValueError, match=r"holds a.weight with the shape \[5, 7\]; the mask is of \[7, 5\]"):
        copy_zeroed(tmp_path / "base.safetensors", tmp_path / "no.safetensors", {"a.weight": mask.T})
    assert not (tmp_path / "no.safetensors").exists()
