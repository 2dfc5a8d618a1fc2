"""Recorded energies against a recomputation from raw activations, and the promise that observing changes nothing."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from tasks.concepts.prompts import Prompt
from tasks.diffusion.pipelines import generate, timesteps
from tasks.diffusion.recorder import Recording, record
from tasks.diffusion.reducing import energy
from tasks.diffusion.sites import linear
from tasks.diffusion.spec import CaptureSpec, NeuronSite
from tests import tiny

PROMPTS = (Prompt("a photo of a fox", 1), Prompt("a rose", 2), Prompt("the dog in an apple", 3))
SPEC = CaptureSpec(steps=3)
NEVER_BUILT = "unet.down_blocks.7.attentions.0.transformer_blocks.0.ff.net.2"


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny.build()


def capture(
    pipe: Any, prompts: Sequence[Prompt] = PROMPTS, spec: CaptureSpec = SPEC, window: int | None = None
) -> Recording:
    with record(pipe, tiny.sites(pipe), branches=len(spec.branches)) as recording:
        generate(pipe, prompts, spec, window=window)
    return recording


@contextmanager
def raw_inputs(pipe: Any, sites: Sequence[NeuronSite]) -> Iterator[dict[str, list[np.ndarray]]]:
    """Each site's inputs [branch x prompt, token, neuron] in float64, one a call, by hooks of this test's own."""
    seen: dict[str, list[np.ndarray]] = {}
    modules = dict(pipe.unet.named_modules())
    handles = [
        modules[site.module].register_forward_pre_hook(
            lambda module, args, name=site.name: seen.setdefault(name, []).append(args[0].double().numpy())
        )
        for site in sites
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def naive_energies(calls: list[np.ndarray], prompts: int, branches: int) -> np.ndarray:
    """The paper's sum, token by token: [prompt, step, branch, neuron] float64."""
    out = np.zeros((prompts, len(calls), branches, calls[0].shape[-1]))
    for step, x in enumerate(calls):
        for branch in range(branches):
            for prompt in range(prompts):
                for token in x[branch * prompts + prompt]:
                    length = np.sqrt((token**2).sum())
                    if length > 0:
                        out[prompt, step, branch] += (token / length) ** 2
    return out


def assert_equals_naive(pipe: Any, prompts: Sequence[Prompt], spec: CaptureSpec) -> None:
    with raw_inputs(pipe, tiny.sites(pipe)) as raw:
        recording = capture(pipe, prompts, spec)
    observed = recording.energies()
    assert set(observed) == set(raw) == {site.name for site in tiny.sites(pipe)}
    for name, calls in raw.items():
        assert observed[name].dtype == np.float32
        expected = naive_energies(calls, len(prompts), len(spec.branches))
        np.testing.assert_allclose(observed[name], expected, rtol=1e-4, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("scheduler", sorted(tiny.SCHEDULERS))
def test_energies_equal_a_recomputation_from_raw_activations(scheduler: str) -> None:
    assert_equals_naive(tiny.build(scheduler), PROMPTS, SPEC)


def test_guidance_1_gives_one_branch(pipe: Any) -> None:
    spec = CaptureSpec(steps=3, guidance=1.0)
    assert spec.branches == ("cond",)
    assert_equals_naive(pipe, PROMPTS, spec)
    assert {found.shape[:3] for found in capture(pipe, spec=spec).energies().values()} == {(3, 3, 1)}


def test_branches_are_uncond_then_cond(pipe: Any) -> None:
    fox, dog = Prompt("a fox", 7), Prompt("dog style dog", 7)  # one noise: only the text differs, and only under cond
    for name, found in capture(pipe, [fox, dog]).energies().items():
        uncond, cond = found[:, 0, 0], found[:, 0, 1]
        np.testing.assert_allclose(uncond[0], uncond[1], rtol=1e-5, err_msg=name)
        assert not np.allclose(cond[0], cond[1], rtol=1e-4), name


def test_energies_sum_to_the_number_of_tokens(pipe: Any) -> None:
    recording = capture(pipe)
    for site in tiny.sites(pipe):
        total = recording.energies()[site.name].sum(-1)
        np.testing.assert_allclose(total, recording.tokens[site.name], rtol=1e-5)
    assert set(recording.tokens.values()) == {64, 16}  # latents of 8 x 8, halved once


def test_a_zero_token_adds_nothing() -> None:
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
    with_zero = torch.cat([x[:, :2], torch.zeros(2, 1, 6), x[:, 2:]], 1)
    torch.testing.assert_close(energy(with_zero), energy(x))
    assert energy(torch.zeros(1, 3, 4)).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("scale", [1e-30, 1e-21, 1e-10, 1e15])
def test_energies_stay_finite_at_any_scale(scale: float) -> None:
    found = energy(torch.full((1, 2, 4), scale))
    assert torch.isfinite(found).all()
    assert (found <= 2).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_reduced_in_float32(dtype: torch.dtype) -> None:
    x = (torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0)) * 1000).to(dtype)  # squares overflow float16
    assert energy(x).dtype == torch.float32
    torch.testing.assert_close(energy(x), energy(x.float()), rtol=0, atol=0)


def test_the_image_is_the_same_bit_for_bit(pipe: Any) -> None:
    unobserved = generate(pipe, PROMPTS, SPEC)
    with record(pipe, tiny.sites(pipe), branches=2):
        observed = generate(pipe, PROMPTS, SPEC)
    assert len(observed) == len(PROMPTS)
    for before, during in zip(unobserved, observed, strict=True):
        np.testing.assert_array_equal(np.asarray(before), np.asarray(during))


def test_hooks_are_gone_after_the_block(pipe: Any) -> None:
    before = tiny.hooks(pipe)
    with record(pipe, tiny.sites(pipe), branches=2):
        assert tiny.hooks(pipe) == before + len(tiny.sites(pipe)) + 1
    assert tiny.hooks(pipe) == before


def test_hooks_are_gone_after_an_exception(pipe: Any) -> None:
    before = tiny.hooks(pipe)
    with pytest.raises(KeyboardInterrupt), record(pipe, tiny.sites(pipe), branches=2):
        raise KeyboardInterrupt
    assert tiny.hooks(pipe) == before


@pytest.mark.parametrize("name", [NEVER_BUILT, "transformer.blocks.0.ff.net.2", "unet.conv_in"])
def test_a_site_that_the_pipeline_has_not_is_refused(pipe: Any, name: str) -> None:
    before = tiny.hooks(pipe)
    unknown = NeuronSite(name, "ffn", 32, 8)
    with pytest.raises(ValueError, match="has no Linear"), record(pipe, [*tiny.sites(pipe), unknown], branches=2):
        pytest.fail("it recorded")
    assert tiny.hooks(pipe) == before


def test_a_prompt_does_not_depend_on_its_batch(pipe: Any) -> None:
    together = capture(pipe).energies()
    for i, prompt in enumerate(PROMPTS):
        alone = capture(pipe, [prompt]).energies()
        paired = capture(pipe, [Prompt("a cat", 99), prompt]).energies()
        for name, found in together.items():
            np.testing.assert_allclose(alone[name][0], found[i], rtol=1e-4, atol=1e-6, err_msg=name)
            np.testing.assert_allclose(paired[name][1], found[i], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("scheduler", sorted(tiny.SCHEDULERS))
def test_a_window_stops_denoising_and_keeps_the_first_steps(scheduler: str) -> None:
    pipe = tiny.build(scheduler)
    spec = CaptureSpec(steps=5)
    full, first = capture(pipe, spec=spec), capture(pipe, spec=spec, window=2)
    assert full.calls == len(timesteps(pipe, CaptureSpec(steps=5)))
    assert first.calls == 2
    for name, found in first.energies().items():
        np.testing.assert_array_equal(found, full.energies()[name][:, :2], err_msg=name)
    assert capture(pipe, spec=spec).calls == full.calls  # the early end does not outlive its run


def test_fault_1_energies_are_keyed_by_name() -> None:
    pipe = tiny.build(layers=11)  # transformer_blocks.10 sorts before transformer_blocks.2
    names = [site.name for site in tiny.sites(pipe)]
    in_module_order = [f"unet.{name}" for name, _ in pipe.unet.named_modules() if f"unet.{name}" in set(names)]
    assert in_module_order != sorted(names)
    spec = CaptureSpec(steps=1)
    assert_equals_naive(pipe, PROMPTS[:1], spec)
    shuffled = [tiny.sites(pipe)[i] for i in np.random.default_rng(0).permutation(len(names))]
    with record(pipe, shuffled, branches=2) as recording:
        generate(pipe, PROMPTS[:1], spec)
    expected = capture(pipe, PROMPTS[:1], spec).energies()
    for name, found in recording.energies().items():
        np.testing.assert_array_equal(found, expected[name], err_msg=name)


def test_fault_2_the_hook_does_not_recompute_the_layer(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = dict.fromkeys((site.name for site in tiny.sites(pipe)), 0)

    def counting(name: str) -> Any:
        forward = linear(pipe, name).forward

        def count(x: torch.Tensor) -> torch.Tensor:
            calls[name] += 1
            return forward(x)

        return count

    for name in calls:
        monkeypatch.setattr(linear(pipe, name), "forward", counting(name))
    recording = capture(pipe)
    assert calls == dict.fromkeys(calls, recording.calls)
    assert recording.calls == SPEC.steps


def test_fault_3_pndm_makes_51_calls_for_50() -> None:
    pipe = tiny.build("pndm")
    spec = CaptureSpec(steps=50)
    steps = timesteps(pipe, CaptureSpec(steps=50))
    assert len(steps) == 51
    assert len(set(steps)) == 50  # one timestep stands twice: a step is a denoiser call, not a timestep
    recording = capture(pipe, PROMPTS[:1], spec)
    assert recording.calls == 51
    assert {found.shape[:3] for found in recording.energies().values()} == {(1, 51, 2)}


def test_a_site_outside_the_denoiser_s_calls_is_an_error(pipe: Any) -> None:
    site = tiny.sites(pipe)[0]
    before = tiny.hooks(pipe)
    with pytest.raises(RuntimeError, match="ran 1 times in 0"), record(pipe, [site], branches=2):
        linear(pipe, site.name)(torch.zeros(2, 1, site.width))
    assert tiny.hooks(pipe) == before


def test_a_site_that_was_skipped_is_an_error(pipe: Any) -> None:
    site = tiny.sites(pipe)[0]
    with record(pipe, [site], branches=2) as recording:
        generate(pipe, PROMPTS[:1], SPEC)
        recording.calls += 1
    with pytest.raises(RuntimeError, match="seen in 3 of 4"):
        recording.energies()
