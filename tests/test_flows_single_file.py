"""A user's single-file checkpoint goes in, and an edited one comes out: the same but for what is pruned."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from storage.edits import Edit, read_edit_at
from storage.listing import latest_edit
from storage.patching import find_rows, tensors_of
from tasks.applying import with_edit
from tasks.concepts.prompts import Prompt
from tasks.diffusion.pipelines import generate, load
from tasks.diffusion.spec import CaptureSpec, ModelSpec
from tasks.single_files import prune_original
from tests import checkpoints
from tests.checkpoints import LAYOUTS, open_with_diffusers
from tests.erase_cases import Case
from tests.test_flows_cli import cli, refused

SPEC = CaptureSpec(steps=3, height=64, width=64)
PROMPTS = [Prompt("a fox", 0), Prompt("a cat in style of apple", 1)]
KINDS = "ffn,ffn_in,attn_k,attn_v,text"


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A pipeline's folder of each layout."""
    return {layout: checkpoints.save(layout, tmp_path_factory.mktemp(layout) / "pipeline") for layout in LAYOUTS}


def run(*words: object) -> None:
    result = cli(*words)
    assert result.exit_code == 0, result.output


def erase(case: Case, model: Path, store: Path) -> Edit:
    """The fox's edit of all site kinds, half of each row's weights being candidates."""
    given = ["--catalog", case.catalog, "--sparsity", "0.5", "--kinds", KINDS, "--no-evaluate", "--no-prefect"]
    run("erase", "fox", "--model", model, "--store", store, "--device", "cpu", *given)
    return read_edit_at(latest_edit(str(store), "fox").path.url)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.families
@pytest.mark.parametrize("family", LAYOUTS)
def test_a_checkpoint_is_imported_as_it_is(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    folder = checkpoints.save(family, tmp_path / "pipeline", dtype)
    file = checkpoints.write(folder, tmp_path / "a.safetensors")
    (tmp_path / "imported.partial").mkdir()
    (tmp_path / "imported.partial" / "notes.txt").write_text("a user's", "utf-8")
    run("import", file, "--to", tmp_path / "imported", "--config", folder)
    for path in folder.glob("*/*.safetensors"):
        old, new = load_file(path), load_file(tmp_path / "imported" / path.relative_to(folder))
        assert old.keys() == new.keys()
        for name in old:
            assert old[name].dtype == new[name].dtype == dtype, name
            assert torch.equal(old[name], new[name]), name
    assert (tmp_path / "imported.partial" / "notes.txt").exists()
    assert not list(tmp_path.glob(".imported*"))
    origin = json.loads((tmp_path / "imported" / "single-file.json").read_text("utf-8"))
    assert origin == {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "size": file.stat().st_size}


def test_a_checkpoint_of_two_precisions_keeps_both(configs: dict[str, Path], tmp_path: Path) -> None:
    mixed = {
        name: tensor.half() if name.startswith("model.") else tensor
        for name, tensor in load_file(checkpoints.write(configs["sd1"], tmp_path / "a.safetensors")).items()
    }
    save_file(mixed, tmp_path / "mixed.safetensors")
    run("import", tmp_path / "mixed.safetensors", "--to", tmp_path / "imported", "--config", configs["sd1"])
    found = {path.parent.name: {tensor.dtype for tensor in load_file(path).values()}
             for path in (tmp_path / "imported").glob("*/*.safetensors")}  # fmt: skip
    assert found == {"unet": {torch.float16}, "vae": {torch.float32}, "text_encoder": {torch.float32}}


@pytest.mark.families
@pytest.mark.parametrize("family", LAYOUTS)
def test_an_edited_checkpoint_differs_in_what_is_pruned_alone(
    case: Case, configs: dict[str, Path], family: str, tmp_path: Path
) -> None:
    plain = checkpoints.write(configs[family], tmp_path / "plain.safetensors")
    tensors = load_file(plain)
    averaged = {  # a training checkpoint's second copy of the denoiser, a little apart
        f"model_ema.{name.removeprefix('model.').replace('.', '')}": tensor * 1.01
        for name, tensor in tensors.items() if name.startswith("model.diffusion_model.")
    }  # fmt: skip
    original = tmp_path / "mine.safetensors"
    save_file({**tensors, **averaged, "somebody.else": torch.arange(5)}, original, {"title": "mine"})
    model, store = tmp_path / "model", tmp_path / "store"
    run("import", original, "--to", model, "--config", configs[family])
    edit = erase(case, model, store)
    given = ["--store", store, "--model", model, "--original", original, "--no-prefect"]
    run("publish", "fox", "--form", "single-file", "--to", tmp_path / "out", *given)

    edited = tmp_path / "out" / "mine-without-fox.safetensors"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["conceptprune.json", edited.name]
    assert edited.stat().st_size == original.stat().st_size
    masks = list(edit.masks().values())
    before, after = load_file(original), load_file(edited)
    with safe_open(edited, "pt") as file:
        assert file.metadata() == {"title": "mine"}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    denoiser = {name for name in changed if name.startswith("model.diffusion_model.")}
    assert {name for name in changed if name.startswith("model_ema.")} == {
        f"model_ema.{name.removeprefix('model.').replace('.', '')}" for name in denoiser
    }
    assert len(changed) - len(denoiser) == sum(mask.any() for mask in masks)  # EMA's and the text encoders'
    pruned = sum(int((before[name] != after[name]).sum()) for name in changed if not name.startswith("model_ema."))
    assert pruned == sum(int(mask.sum()) for mask in masks)
    assert all((after[name][before[name] != after[name]] == 0).all() for name in changed)

    patched = load(ModelSpec(str(model), device="cpu"))
    with with_edit(patched, edit.path):
        wanted = generate(patched, PROMPTS, SPEC)
    for one, other in zip(wanted, generate(open_with_diffusers(edited, model), PROMPTS, SPEC), strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("mix", ["upcast unet", "half unet with a full tensor"])
def test_a_file_of_mixed_precision_is_pruned_too(
    case: Case, configs: dict[str, Path], mix: str, tmp_path: Path
) -> None:
    tensors = load_file(checkpoints.write(configs["sd1"], tmp_path / "plain.safetensors"))
    half = {name: tensor.half() for name, tensor in tensors.items()}
    if mix == "upcast unet":
        half = {name: tensor.float() if name.startswith("model.") else tensor for name, tensor in half.items()}
    else:
        full = "model.diffusion_model.time_embed.0.weight"
        half[full] = tensors[full]
    original, model, store = tmp_path / "mine.safetensors", tmp_path / "model", tmp_path / "store"
    save_file(half, original)
    run("import", original, "--to", model, "--config", configs["sd1"])
    masks = erase(case, model, store).masks()
    given = ["--store", store, "--model", model, "--original", original, "--no-prefect"]
    run("publish", "fox", "--form", "single-file", "--to", tmp_path / "out", *given)
    after = load_file(tmp_path / "out" / "mine-without-fox.safetensors")
    assert {name: tensor.dtype for name, tensor in after.items()} == {n: t.dtype for n, t in half.items()}
    changed = [name for name in half if not torch.equal(half[name], after[name])]
    pruned = sum(int((half[name] != after[name]).sum()) for name in changed)
    assert len(changed) == sum(mask.any() for mask in masks.values())
    assert pruned == sum(int(mask.sum()) for mask in masks.values())


@pytest.mark.families
@pytest.mark.parametrize("family", LAYOUTS)
def test_a_folder_without_its_checkpoint_becomes_one(
    case: Case, configs: dict[str, Path], family: str, tmp_path: Path
) -> None:
    model, store = configs[family], tmp_path / "store"
    edit = erase(case, model, store)
    given = ["--store", store, "--model", model, "--no-prefect"]
    run("publish", "fox", "--form", "single-file", "--to", tmp_path / "out", *given)
    file = tmp_path / "out" / "pipeline-without-fox.safetensors"
    with safe_open(file, "pt") as opened:
        assert opened.metadata()["conceptprune.edit"] == edit.id
        assert "no proof of removal" in opened.metadata()["conceptprune.warning"]
    patched = load(ModelSpec(str(model), device="cpu"))
    plain = generate(patched, PROMPTS, SPEC)
    with with_edit(patched, edit.path):
        wanted = generate(patched, PROMPTS, SPEC)
    for one, other, base in zip(wanted, generate(open_with_diffusers(file, model), PROMPTS, SPEC), plain, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))
        assert not np.array_equal(np.asarray(one), np.asarray(base))


def test_what_cannot_be_imported_is_refused(case: Case, configs: dict[str, Path], tmp_path: Path) -> None:
    file, new = checkpoints.write(configs["sd1"], tmp_path / "a.safetensors"), tmp_path / "new"
    pickled = tmp_path / "model.ckpt"
    pickled.write_bytes(b"\x80\x04")
    refused(cli("import", pickled, "--to", new, "--config", configs["sd1"]), "pickled checkpoints are never loaded")
    refused(cli("import", tmp_path / "no.safetensors", "--to", new, "--config", configs["sd1"]), "is no .safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\xff" * 100)
    refused(cli("import", broken, "--to", new, "--config", configs["sd1"]), "is no safetensors file")
    refused(cli("import", file, "--to", configs["sd2"], "--config", configs["sd1"]), "is there already; give a new")
    refused(cli("import", file, "--to", "s3://bucket/x", "--config", configs["sd1"]), "is no local folder; models are")
    refused(cli("import", file, "--to", new, "--config", tmp_path), "expected a folder with model_index.json")
    refused(cli("import", file, "--to", new, "--config", "someone/model"), "for a hub id give --revision")
    refused(cli("import", file, "--to", new, "--config", configs["sdxl"]), "does not fit the configs of")
    layer = "cond_stage_model.transformer.text_model.encoder.layers.1.mlp.fc2.weight"
    for name, says in (
        ("model.diffusion_model.out.2.weight", "lacks some of the weights that the configs of"),
        (layer, r"has no weights for text_encoder\.encoder\.layers\.1\.mlp\.fc2\.weight"),
    ):
        save_file({key: value for key, value in load_file(file).items() if key != name}, tmp_path / "short.safetensors")
        refused(cli("import", tmp_path / "short.safetensors", "--to", new, "--config", configs["sd1"]), says)
    assert not new.exists()
    assert not list(tmp_path.glob(".new*"))
    words = ["--catalog", case.catalog, "--store", tmp_path / "store", "--no-prefect"]
    refused(
        cli("erase", "fox", "--model", file, *words), "is a single file; make a folder of it first: conceptprune import"
    )


def test_another_file_than_the_models_is_refused(case: Case, configs: dict[str, Path], tmp_path: Path) -> None:
    model, store = configs["sd1"], tmp_path / "store"
    erase(case, model, store)
    given = ["publish", "fox", "--to", tmp_path / "out", "--store", store, "--model", model, "--no-prefect"]
    half = checkpoints.write(checkpoints.save("sd1", tmp_path / "half", torch.float16), tmp_path / "half.safetensors")
    file = checkpoints.write(model, tmp_path / "a.safetensors")
    refused(cli(*given, "--form", "mask", "--original", file), "original is for the form single-file, not mask")
    refused(
        cli(*given, "--form", "single-file", "--original", half), "holds the weights of .* nowhere; expected them once"
    )
    tensors = load_file(file)
    name = "model.diffusion_model.middle_block.1.transformer_blocks.0.ff.net.2.weight"
    save_file({**tensors, "copy": tensors[name].clone()}, tmp_path / "twice.safetensors")
    twice = tmp_path / "twice.safetensors"
    refused(cli(*given, "--form", "single-file", "--original", twice), f"at copy and {name}; expected them once")
    imported = tmp_path / "imported"
    run("import", file, "--to", imported, "--config", model)
    erase(case, imported, store)
    given[given.index(model)] = imported
    refused(cli(*given, "--form", "single-file", "--original", twice), r"is not the file that \S+ was imported from")
    assert not (tmp_path / "out").exists()


def test_a_site_in_the_middle_of_a_longer_tensor_is_pruned_there(configs: dict[str, Path], tmp_path: Path) -> None:
    tensors = load_file(checkpoints.write(configs["sd1"], tmp_path / "plain.safetensors"))
    stem = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_"
    parts = [tensors.pop(f"{stem}{letter}.weight") for letter in "kv"]
    save_file(
        {**tensors, f"{stem}kv": torch.cat([*parts, torch.randn_like(parts[0])])}, tmp_path / "joined.safetensors"
    )
    mask = np.random.default_rng(0).random(parts[1].shape) < 0.5
    site = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v"
    prune_original(configs["sd1"], tmp_path / "joined.safetensors", {site: mask}, None, tmp_path / "out.safetensors")
    before, after = (load_file(tmp_path / f"{name}.safetensors")[f"{stem}kv"] for name in ("joined", "out"))
    wanted = before.clone()
    wanted[len(parts[0]) : 2 * len(parts[0])][torch.from_numpy(mask)] = 0
    assert torch.equal(after, wanted)


def test_a_matrix_is_found_among_the_rows_of_a_longer_one(tmp_path: Path) -> None:
    keys, values, other = torch.randn(4, 6), torch.randn(4, 6), torch.randn(4, 5)
    save_file({"qkv": torch.cat([torch.randn(4, 6), keys, values]), "other": other}, tmp_path / "a.safetensors")
    assert tensors_of(tmp_path / "a.safetensors")["qkv"]["shape"] == [12, 6]

    def bits(tensor: torch.Tensor) -> np.ndarray:
        return tensor.numpy().view(np.uint8).reshape(*tensor.shape, 4)

    assert find_rows(tmp_path / "a.safetensors", bits(values), "F32") == [("qkv", 8)]
    assert find_rows(tmp_path / "a.safetensors", bits(other), "F32") == [("other", 0)]
    assert find_rows(tmp_path / "a.safetensors", bits(other), "F16") == []
    assert find_rows(tmp_path / "a.safetensors", bits(torch.randn(4, 6)), "F32") == []
    like = values.clone()
    like[-1, -1] += 1  # its first row is there
    assert find_rows(tmp_path / "a.safetensors", bits(like), "F32") == []
