"""Patching a pipeline: exactly the mask, only what the edit was made for, and back to the same bits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from tasks.concepts.prompts import Prompt
from tasks.diffusion.pipelines import generate
from tasks.diffusion.pruned import check_base, patch, patched, pruned, site_weights, weights_fingerprint
from tasks.diffusion.sites import linear
from tasks.diffusion.spec import CaptureSpec
from tests import tiny

PROMPTS = (Prompt("a photo of a fox", 1),)
SPEC = CaptureSpec(steps=2)


@pytest.fixture
def pipe() -> Any:
    return tiny.build()


def random_masks(pipe: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {site.name: rng.random((site.rows, site.width)) < 0.3 for site in tiny.sites(pipe)}


def state(pipe: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in pipe.unet.state_dict().items()}


def assert_same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(got) == set(expected)
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name], tensor), name


def masked(weights: dict[str, torch.Tensor], masks: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """What the weights should be: W * (not mask), nothing else touched."""
    out = dict(weights)
    for name, mask in masks.items():
        key = f"{name.removeprefix('unet.')}.weight"
        out[key] = torch.where(torch.from_numpy(mask), torch.zeros(()), weights[key])
    return out


def test_the_mask_holds_inside_the_block_and_every_bit_is_back_after_it(pipe: Any) -> None:
    before, masks = state(pipe), random_masks(pipe)
    pointers = {name: linear(pipe, name).weight.data_ptr() for name in masks}
    with pruned(pipe, masks, weights_fingerprint(pipe, ["unet"])) as inside:
        assert inside is pipe
        assert_same(state(pipe), masked(before, masks))
    assert_same(state(pipe), before)
    assert {name: linear(pipe, name).weight.data_ptr() for name in masks} == pointers


def test_every_bit_is_back_after_an_exception(pipe: Any) -> None:
    before = state(pipe)
    with pytest.raises(KeyboardInterrupt), pruned(pipe, random_masks(pipe)):
        raise KeyboardInterrupt
    assert_same(state(pipe), before)


def test_blocks_nest(pipe: Any) -> None:
    before, masks = state(pipe), random_masks(pipe)
    opposite = {name: ~mask for name, mask in masks.items()}
    with pruned(pipe, masks):
        with pruned(pipe, opposite):
            assert all(not linear(pipe, name).weight.any() for name in masks)
        assert_same(state(pipe), masked(before, masks))
    assert_same(state(pipe), before)


def test_the_image_changes_inside_the_block_only(pipe: Any) -> None:
    before = np.asarray(generate(pipe, PROMPTS, SPEC)[0])
    everything = {site.name: np.ones((site.rows, site.width), bool) for site in tiny.sites(pipe)}
    with pruned(pipe, everything):
        during = np.asarray(generate(pipe, PROMPTS, SPEC)[0])
    assert (during != before).any()
    np.testing.assert_array_equal(np.asarray(generate(pipe, PROMPTS, SPEC)[0]), before)


def test_no_masks_change_nothing(pipe: Any) -> None:
    before = state(pipe)
    with pruned(pipe, {}):
        assert_same(state(pipe), before)


def test_patch_zeroes_exactly_the_mask(pipe: Any) -> None:
    before, masks = state(pipe), random_masks(pipe)
    patch(pipe, masks, weights_fingerprint(pipe, ["unet"]))
    assert_same(state(pipe), masked(before, masks))


def test_patch_refuses_a_patched_pipeline(pipe: Any) -> None:
    base = weights_fingerprint(pipe, ["unet"])
    patch(pipe, random_masks(pipe), base)
    with pytest.raises(ValueError, match="already patched"):
        patch(pipe, random_masks(pipe), base)


def test_a_patched_pipeline_keeps_its_weights_when_it_is_saved(pipe: Any, tmp_path: Path) -> None:
    patch(pipe, random_masks(pipe), weights_fingerprint(pipe, ["unet"]))
    pipe.save_pretrained(tmp_path)
    again = StableDiffusionPipeline.from_pretrained(tmp_path, use_safetensors=True, local_files_only=True)
    assert_same(state(again), state(pipe))
    np.testing.assert_array_equal(
        np.asarray(generate(again, PROMPTS, SPEC)[0]), np.asarray(generate(pipe, PROMPTS, SPEC)[0])
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_fault_10_masks_of_another_model_are_refused(pipe: Any, seed: int) -> None:
    masks, base = random_masks(pipe), weights_fingerprint(pipe, ["unet"])
    other = tiny.build(seed=seed)  # the same shapes and names: only the weights tell
    before = state(other)
    with pytest.raises(ValueError, match="not those that the edit was made for"), pruned(other, masks, base):
        pytest.fail("it pruned")
    with pytest.raises(ValueError, match="not those that the edit was made for"):
        patch(other, masks, base)
    assert_same(state(other), before)


def test_fault_10_masks_of_another_family_are_refused(pipe: Any) -> None:
    with pytest.raises(ValueError, match="^this pipeline has no transformer, .*: another model; load"):
        check_base(pipe, weights_fingerprint(pipe, ["unet"]), ["unet", "transformer"])


def test_fault_10_masks_of_other_sites_are_refused(pipe: Any) -> None:
    masks = random_masks(tiny.build(layers=2))
    before = state(pipe)
    with pytest.raises(ValueError, match="has no Linear .*another model"), pruned(pipe, masks):
        pytest.fail("it pruned")
    with pytest.raises(ValueError, match="has no Linear .*another model"):
        patch(pipe, masks, weights_fingerprint(pipe, ["unet"]))
    assert_same(state(pipe), before)


def test_fault_10_masks_of_another_shape_are_refused(pipe: Any) -> None:
    masks = random_masks(pipe)
    masks[max(masks)] = np.ones((8, 33), bool)  # the last: those before it must not stay patched
    before = state(pipe)
    with pytest.raises(ValueError, match=r"mask of shape \(8, 33\) .*another model"), pruned(pipe, masks):
        pytest.fail("it pruned")
    with pytest.raises(ValueError, match=r"mask of shape \(8, 33\) .*another model"):
        patch(pipe, masks, weights_fingerprint(pipe, ["unet"]))
    assert_same(state(pipe), before)


def test_a_read_only_mask_will_do() -> None:
    mask = np.array([[True, False]])
    mask.setflags(write=False)
    weight = torch.tensor([[3.0, -2.0]])
    assert patched(weight, mask).tolist() == [[0, -2]]
    assert weight.tolist() == [[3, -2]]


def test_the_fingerprint_knows_every_weight(pipe: Any) -> None:
    before = weights_fingerprint(pipe, ["unet"])
    assert weights_fingerprint(tiny.build(), ["unet"]) == before
    with torch.no_grad():
        pipe.unet.conv_out.bias[-1] += 1e-6
    assert weights_fingerprint(pipe, ["unet"]) != before
    assert weights_fingerprint(pipe, ["unet", "vae"]) != weights_fingerprint(pipe, ["unet"])


def test_the_fingerprint_does_not_depend_on_a_wider_dtype(pipe: Any) -> None:
    half = weights_fingerprint(pipe.to(dtype=torch.float16), ["unet"])
    assert weights_fingerprint(pipe.to(dtype=torch.float32), ["unet"]) == half
    check_base(pipe, half, ["unet"])


def test_site_weights_are_the_linears(pipe: Any) -> None:
    sites = tiny.sites(pipe)
    found = site_weights(pipe, sites)
    assert list(found) == [site.name for site in sites]
    for site in sites:
        assert found[site.name].shape == (site.rows, site.width)
        np.testing.assert_array_equal(found[site.name], linear(pipe, site.name).weight.detach().numpy())


def test_site_weights_of_bfloat16_are_its_bits(pipe: Any) -> None:
    sites = tiny.sites(pipe)
    bits = site_weights(pipe.to(dtype=torch.bfloat16), sites)[sites[0].name]
    assert bits.dtype == np.uint16
    values = (bits.astype(np.uint32) << 16).view(np.float32)  # bfloat16 is float32's upper half
    np.testing.assert_array_equal(values, linear(pipe, sites[0].name).weight.detach().float().numpy())
