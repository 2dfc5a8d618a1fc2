"""Pooled statistics and raw tokens against hooks of the test's own; keeping them changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tasks.concepts.prompts import Prompt
from tasks.diffusion import tiers
from tasks.diffusion.pipelines import generate
from tasks.diffusion.recorder import Recording, record
from tasks.diffusion.spec import CaptureSpec, TierSpec
from tasks.diffusion.tiers import grid
from tests import tiny
from tests.test_diffusion_recorder import PROMPTS, SPEC, raw_inputs

MID = "unet.mid_block*"
POOLED = TierSpec("pooled", ("*",))
RAW = TierSpec("raw", (MID, "unet.up_blocks.1*"), "0,2")


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny.build()


def observe(pipe: Any, *tiers: TierSpec, spec: CaptureSpec = SPEC, window: int | None = None) -> Recording:
    with record(pipe, tiny.sites(pipe), branches=len(spec.branches), tiers=tiers) as recording:
        generate(pipe, PROMPTS, spec, window=window)
    return recording


def expected(pipe: Any, spec: CaptureSpec = SPEC) -> dict[str, np.ndarray]:
    """Each site's inputs [prompt, step, branch, token, neuron] in float64."""
    with raw_inputs(pipe, tiny.sites(pipe)) as seen:
        generate(pipe, PROMPTS, spec)
    out = {}
    for name, calls in seen.items():
        x = np.stack(calls)  # step, branch x prompt, token, neuron
        out[name] = x.reshape(len(calls), len(spec.branches), len(PROMPTS), *x.shape[2:]).transpose(2, 0, 1, 3, 4)
    return out


@pytest.mark.parametrize("scheduler", sorted(tiny.SCHEDULERS))
def test_pooled_statistics_are_those_of_the_raw_activations(scheduler: str) -> None:
    pipe = tiny.build(scheduler)
    found, inputs = observe(pipe, POOLED).tier(POOLED), expected(pipe)
    assert set(found) == set(inputs)
    for name, x in inputs.items():
        assert {variable: values.dtype for variable, values in found[name].items()} == {
            "mean": np.float32, "absmax": np.float32, "positive": np.float32
        }  # fmt: skip
        np.testing.assert_allclose(found[name]["mean"], x.mean(3), rtol=1e-4, atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(found[name]["absmax"], abs(x).max(3).astype("f4"), err_msg=name)
        np.testing.assert_allclose(found[name]["positive"], (x > 0).mean(3), rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("guidance", [4.0, 1.0])
def test_raw_tokens_are_the_activations_in_float16_of_chosen_sites_and_steps(pipe: Any, guidance: float) -> None:
    spec = CaptureSpec(steps=3, guidance=guidance)
    found, inputs = observe(pipe, RAW, spec=spec).tier(RAW), expected(pipe, spec)
    assert set(found) == {name for name in inputs if ".mid_block" in name or ".up_blocks.1" in name}
    for name, own in found.items():
        [(variable, x)] = own.items()
        assert (variable, x.dtype) == ("activation", np.float16)
        np.testing.assert_array_equal(x, inputs[name][:, [0, 2]].astype("f2"), err_msg=name)


def test_tiers_change_neither_energies_nor_images_by_a_bit(pipe: Any) -> None:
    with record(pipe, tiny.sites(pipe), branches=2) as off:
        images_off = generate(pipe, PROMPTS, SPEC)
    with record(pipe, tiny.sites(pipe), branches=2, tiers=[POOLED, RAW]) as on:
        images_on = generate(pipe, PROMPTS, SPEC)
    for name, energy in off.energies().items():
        np.testing.assert_array_equal(on.energies()[name], energy, err_msg=name)
    for one, other in zip(images_off, images_on, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert on.tokens == off.tokens


def test_with_tiers_off_nothing_is_reduced(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(x: torch.Tensor) -> dict[str, torch.Tensor]:
        raise AssertionError("a tier that was not asked for")

    monkeypatch.setattr(tiers, "REDUCTIONS", {"pooled": fail, "raw": fail})
    observe(pipe)
    with pytest.raises(AssertionError, match="not asked for"):
        observe(pipe, RAW)
    assert tiny.hooks(pipe) == 0


def test_a_tier_adds_no_hooks_and_a_window_is_enough(pipe: Any) -> None:
    with record(pipe, tiny.sites(pipe), branches=2, tiers=[POOLED, RAW]):
        assert tiny.hooks(pipe) == len(tiny.sites(pipe)) + 1
    assert tiny.hooks(pipe) == 0
    one = TierSpec("raw", (MID,), "1")
    whole, cut = observe(pipe, one).tier(one), observe(pipe, one, window=2).tier(one)
    for name, own in whole.items():
        np.testing.assert_array_equal(cut[name]["activation"], own["activation"])


def test_a_site_that_is_not_observed_is_refused_before_anything_is_hooked(pipe: Any) -> None:
    missing = TierSpec("raw", ("unet.down_blocks.7*",))
    with pytest.raises(ValueError, match=r"no site is named unet\.down_blocks\.7\*; there are unet\.down"):
        observe(pipe, missing)
    assert tiny.hooks(pipe) == 0


def test_raw_tokens_do_not_stay_on_the_device_nor_share_its_memory() -> None:
    x = torch.ones(2, 3, 4, dtype=torch.float16)
    kept = tiers.raw(x)["activation"]
    x.zero_()
    assert kept.device.type == "cpu"
    assert kept.eq(1).all()


def test_too_large_for_float16_becomes_infinite_and_pooling_is_in_float32() -> None:
    x = torch.full((1, 2, 1), 60000.0, dtype=torch.bfloat16)
    assert tiers.raw(x * 2)["activation"].isinf().all()
    assert tiers.pooled(x.half())["mean"].item() == x.half()[0, 0, 0].item()  # a sum in float16 would be infinite


@pytest.mark.parametrize(
    ("tokens", "height", "width", "shape"),
    [
        (4096, 64, 64, (64, 64)),
        (64, 64, 64, (8, 8)),
        (6144, 64, 96, (64, 96)),
        (96, 64, 96, (8, 12)),
        (24, 32, 48, (4, 6)),
        (35, 27, 19, (7, 5)),  # 27 x 19 -> 14 x 10 -> 7 x 5
        (1, 8, 8, (1, 1)),
        (2, 8, 12, (1, 2)),
        (77, 64, 64, None),  # CLIP's tokens
        (154, 64, 64, None),
        (512, 64, 64, None),
        (6144, 64, 64, None),
    ],
)
def test_grids_are_what_halved_latents_make(tokens: int, height: int, width: int, shape: Any) -> None:
    assert grid(tokens, height, width) == shape


def test_grids_of_a_run_follow_its_latents(pipe: Any) -> None:
    spec = CaptureSpec(steps=1, height=48, width=32)
    recording = observe(pipe, spec=spec)
    by_tokens = {recording.tokens[name]: shape for name, shape in recording.grids().items()}
    assert by_tokens == {96: (12, 8), 24: (6, 4)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "mean"}, "tier 'mean' is unknown; use pooled or raw"),
        ({"sites": ()}, "a tier without sites"),
        ({"steps": "4-1"}, "steps '4-1' is no choice; give numbers and ranges"),
        ({"steps": ""}, "is no choice"),
    ],
)
def test_a_tier_that_means_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TierSpec(**{"kind": "raw", "sites": ("*",), **options})


def test_a_tier_names_sites_and_steps(pipe: Any) -> None:
    sites = tiny.sites(pipe)
    assert TierSpec("raw", (sites[2].name, sites[0].name)).chosen(sites) == [sites[0], sites[2]]
    assert TierSpec("raw", ("*",)).calls(3) == [0, 1, 2]
    assert TierSpec("raw", ("*",), "2,0-1") == TierSpec("raw", ("*",), "0-2")
    with pytest.raises(ValueError, match="steps 0-2 asks for 2, but there are 2, 0 to 1"):
        TierSpec("raw", ("*",), "0-2").calls(2)


def test_a_prompt_s_values_do_not_depend_on_its_batch(pipe: Any) -> None:
    together = observe(pipe, RAW).tier(RAW)
    with record(pipe, tiny.sites(pipe), branches=2, tiers=[RAW]) as alone:
        generate(pipe, [Prompt("a cat", 99), PROMPTS[1]], SPEC)
    for name, own in alone.tier(RAW).items():
        np.testing.assert_allclose(own["activation"][1], together[name]["activation"][1], rtol=2e-3, atol=1e-4)
