"""Edits on a loaded pipeline: the right weights, the right model, or nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flows.erase_concept import erase
from flows.plan import make_plan
from flows.steps import Steps
from storage.edits import read_edit_at
from tasks.applying import Edits, apply_edit, with_edit
from tasks.concepts.prompts import Prompt
from tasks.diffusion import pipelines
from tasks.diffusion.pruned import pruned
from tasks.diffusion.spec import CaptureSpec
from tests import erase_cases, tiny

SPEC = CaptureSpec(steps=3, height=32, width=32)
PROMPTS = [Prompt("a fox", 0), Prompt("a cat in style of apple", 1)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An edit of the fox for the tiny model."""
    case = erase_cases.build(tmp_path_factory.mktemp("case"))
    store = tmp_path_factory.mktemp("store")
    return Path(erase(make_plan(case.request(store, evaluate=False, sparsity="0.5")), Steps()).url)


@pytest.fixture
def edit(made: Path, tmp_path: Path) -> Path:
    """A copy of it, wherever: an edit is its folder."""
    return Path(shutil.copytree(made, tmp_path / "edit"))


def draw(pipe: Any) -> np.ndarray:
    return np.stack([np.asarray(image) for image in pipelines.generate(pipe, PROMPTS, SPEC)])


def state(pipe: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in pipe.unet.state_dict().items()}


def changed(pipe: Any, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in pipe.unet.state_dict().items() if not torch.equal(tensor, before[name])}


def test_a_pipeline_that_anyone_loaded_is_patched(edit: Path) -> None:
    pipe, masks = tiny.build(), erase_cases.masks(edit)
    before, plain = state(pipe), draw(pipe)
    with pruned(pipe, masks):
        expected = draw(pipe)
    assert apply_edit(pipe, edit).concept == "fox"
    np.testing.assert_array_equal(draw(pipe), expected)
    assert not np.array_equal(expected, plain)
    assert changed(pipe, before) == {f"{site.removeprefix('unet.')}.weight" for site in masks}
    for site, mask in masks.items():
        name = f"{site.removeprefix('unet.')}.weight"
        weight = pipe.unet.get_parameter(name).detach().numpy()
        np.testing.assert_array_equal(weight, before[name].numpy() * ~mask)


def test_with_edit_ends(edit: Path) -> None:
    pipe = tiny.build()
    before, plain = state(pipe), draw(pipe)
    with with_edit(pipe, str(edit)):
        assert changed(pipe, before)
        assert not np.array_equal(draw(pipe), plain)
    assert changed(pipe, before) == set()


@pytest.mark.parametrize("apply", [apply_edit, lambda pipe, edit: with_edit(pipe, edit).__enter__()])
def test_fault_10_another_base_model_is_refused(edit: Path, apply: Any) -> None:
    """The reference code loads a mask into any model whose shapes fit."""
    pipe = tiny.build(seed=1)
    before = state(pipe)
    with pytest.raises(ValueError, match="this pipeline's weights .* are not those that the edit was made for"):
        apply(pipe, edit)
    assert changed(pipe, before) == set()


def test_a_pipeline_is_patched_once(edit: Path) -> None:
    pipe = tiny.build()
    apply_edit(pipe, edit)
    with pytest.raises(ValueError, match="another model, another precision, or already patched"):
        apply_edit(pipe, edit)


@pytest.mark.parametrize("damage", ["bit", "cut", "gone", "manifest"])
def test_a_damaged_edit_is_refused(edit: Path, damage: str) -> None:
    mask = edit / "mask.safetensors"
    data = bytearray(mask.read_bytes())
    if damage == "bit":
        data[-1] ^= 1
        mask.write_bytes(data)
    elif damage == "cut":
        mask.write_bytes(data[:-3])
    else:
        (mask if damage == "gone" else edit / "manifest.json").unlink()
    pipe = tiny.build()
    before = state(pipe)
    with pytest.raises(ValueError, match="(mask.safetensors|manifest.json)") as caught:
        apply_edit(pipe, edit)
    assert "\n" not in str(caught.value)
    assert changed(pipe, before) == set()


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Edits of three concepts for the tiny model, one of them of other site kinds."""
    case = erase_cases.build(tmp_path_factory.mktemp("several"))
    store = tmp_path_factory.mktemp("several-store")
    options: dict[str, dict[str, Any]] = {
        "fox": {"sparsity": "0.5"}, "apple": {"sparsity": "0.3"}, "rose": {"kinds": "attn_v,text", "sparsity": "0.5"},
    }  # fmt: skip
    return {concept: Path(erase(make_plan(case.request(store, concept, evaluate=False, **own)), Steps()).url)
            for concept, own in options.items()}  # fmt: skip


def everything(pipe: Any) -> dict[str, torch.Tensor]:
    """A copy of all weights that edits may change."""
    return {f"{part}.{name}": tensor.clone() for part in ("unet", "text_encoder")
            for name, tensor in getattr(pipe, part).state_dict().items()}  # fmt: skip


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_edits_compose_as_their_union_in_any_order_and_go_without_a_trace(several: dict[str, Path]) -> None:
    pipe = tiny.build()
    base, edits = everything(pipe), Edits(pipe)
    masks = {concept: read_edit_at(str(url)).masks() for concept, url in several.items()}
    for use in (["fox"], ["fox", "apple", "rose"], ["rose", "apple", "fox"], ["apple", "rose"], ["rose"], []):
        assert [edit.concept for edit in edits.use(*(several[concept] for concept in use))] == use
        wanted = {name: tensor.clone() for name, tensor in base.items()}
        for concept in use:
            for site, mask in masks[concept].items():
                wanted[f"{site}.weight"][torch.from_numpy(mask)] = 0
        assert same(everything(pipe), wanted)
    assert same(everything(pipe), base)


def test_two_edits_at_once_draw_what_their_union_draws(several: dict[str, Path]) -> None:
    pipe, other = tiny.build(), tiny.build()
    Edits(pipe).use(several["fox"], several["apple"])
    fox, apple = (read_edit_at(str(several[concept])).masks() for concept in ("fox", "apple"))
    with pruned(other, {site: fox[site] | apple[site] for site in fox}):
        assert np.array_equal(draw(pipe), draw(other))


def test_what_was_in_use_stays_where_another_is_refused(several: dict[str, Path], tmp_path: Path) -> None:
    pipe = tiny.build()
    edits = Edits(pipe)
    edits.use(several["fox"])
    before = everything(pipe)
    damaged = Path(shutil.copytree(several["apple"], tmp_path / "damaged"))
    (damaged / "mask.safetensors").write_bytes(b"no mask")
    with pytest.raises(ValueError, match="wrong sha256"):
        edits.use(several["rose"], damaged)
    assert same(everything(pipe), before)
    assert [edit.concept for edit in edits.active] == ["fox"]
    stranger = Edits(tiny.build(seed=1))
    with pytest.raises(ValueError, match="not those that the edit was made for"):
        stranger.use(several["fox"])
    assert stranger.active == ()


def test_the_base_is_hashed_once_for_each_kind_of_edit(
    several: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr("tasks.applying.check_base", lambda pipe, expected, components: calls.append(components))
    edits = Edits(tiny.build())
    for concept in ("fox", "apple", "rose", "fox", "rose"):
        edits.use(several[concept])
    assert calls == [frozenset({"unet"}), frozenset({"unet", "text_encoder"})]
