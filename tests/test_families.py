"""Every family, on the real diffusers classes with random weights: what is observed, and what an edit changes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from storage.activations import ActivationStore
from storage.opening import open_activations
from storage.roots import Root
from storage.upkeep import damaged_slots
from tasks.concepts.prompts import Prompt
from tasks.diffusion.headers import read_sites
from tasks.diffusion.pipelines import captured_timesteps, generate
from tasks.diffusion.pruned import patch, pruned, weights_fingerprint
from tasks.diffusion.recorder import Recording, record
from tasks.diffusion.sites import denoiser, linear
from tasks.diffusion.spec import CaptureSpec, NeuronSite
from tests import families, tiny
from tests.families_sites import EXPECTED

pytestmark = pytest.mark.families

PROMPTS = (Prompt("a photo of a fox", 1), Prompt("rose", 2))  # of unlike lengths
KINDS = ("ffn", "ffn_in", "attn_k", "attn_v", "text")
NAMES = sorted(families.FAMILIES)
RUNS = [(family, scheduler) for family in NAMES for scheduler in families.FAMILIES[family][1]]


def spec_of(family: str, **options: Any) -> CaptureSpec:
    return CaptureSpec(**{"steps": 3, "height": 64, "width": 64, "halves": family != "flux", **options})


def capture(
    pipe: Any, sites: Sequence[NeuronSite], spec: CaptureSpec, prompts: Sequence[Prompt] = PROMPTS
) -> Recording:
    with record(pipe, sites, len(spec.branches), padding=spec.padding) as recording:
        generate(pipe, prompts, spec)
    return recording


@contextmanager
def raw_inputs(pipe: Any, sites: Sequence[NeuronSite]) -> Iterator[dict[str, list[np.ndarray]]]:
    """The neurons [batch, token, neuron] of every site and call, in float64, by hooks of this test's own."""
    seen: dict[str, list[np.ndarray]] = {site.name: [] for site in sites}
    handles = []
    for site in sites:
        module = linear(pipe, site.name)
        start = module.in_features - site.width

        def see(module: Any, args: Any, name: str = site.name, start: int = start) -> None:
            seen[name].append(args[0].double().numpy()[..., start:])

        handles.append(module.register_forward_pre_hook(see))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def naive(x: np.ndarray) -> np.ndarray:
    """The paper's sum for one call: [batch, neuron]."""
    lengths = np.sqrt((x**2).sum(-1, keepdims=True))
    return ((x / np.where(lengths > 0, lengths, 1)) ** 2).sum(1)


def expected_energies(
    site: NeuronSite, calls: list[np.ndarray], branches: int, lengths: Sequence[int] | None
) -> np.ndarray:
    """[prompt, step, branch, neuron], or [prompt, branch, neuron]; `lengths` of the prompts where padding is out."""
    if site.kind == "text":  # the prompts, then, if they are run, the empty ones: <start> and <end> count
        halves = []
        for call, real in zip(calls, [lengths, [2] * len(PROMPTS)], strict=False):
            kept = call.copy()
            for i, length in enumerate(real if lengths else []):
                kept[i, length:] = 0
            halves.append(naive(kept))
        missing = [np.zeros_like(halves[0])] * (branches - len(halves))
        return np.stack([*missing, *reversed(halves)], 1)
    steps = np.stack([naive(call) for call in calls])
    found = steps.reshape(len(calls), branches, len(PROMPTS), -1).transpose(2, 0, 1, 3)
    return found[:, 0] if site.once else found


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_sites_are_those_of_a_list_by_hand(family_folders: dict[str, Path], family: str, kind: str) -> None:
    found = read_sites(family_folders[family], (kind,))
    assert sorted(site.name for site in found) == sorted(EXPECTED[family][kind])
    pipe = families.build(family)
    for site in found:
        module = linear(pipe, site.name)
        assert (site.kind, site.rows, site.inputs) == (kind, module.out_features, module.in_features)
        assert site.start == (module.out_features if "single" in site.name and kind == "ffn" else 0)


@pytest.mark.parametrize(("family", "scheduler"), RUNS)
@pytest.mark.parametrize("guidance", [4.0, 1.0])
def test_energies_equal_a_naive_recomputation_and_the_image_is_unchanged(
    family_folders: dict[str, Path], family: str, scheduler: str, guidance: float
) -> None:
    pipe, spec = families.build(family, scheduler), spec_of(family, guidance=guidance)
    sites = read_sites(family_folders[family], KINDS)
    branches = 2 if guidance > 1 and family != "flux" else 1
    assert len(spec.branches) == branches
    plain = generate(pipe, PROMPTS, spec)
    with raw_inputs(pipe, sites) as raw, record(pipe, sites, branches) as recording:
        observed = generate(pipe, PROMPTS, spec)
    assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(plain, observed, strict=True))
    assert recording.calls == len(captured_timesteps(pipe, spec))
    energies = recording.energies()
    assert set(energies) == {site.name for site in sites if not site.source}
    for site in sites:
        found = energies[site.source or site.name]
        wanted = expected_energies(site, raw[site.name], branches, None)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6, err_msg=site.name)
        if site.once and site.kind != "text":  # the same at every step, and in every site with one source
            for call in raw[site.name]:
                np.testing.assert_array_equal(call, raw[site.source or site.name][0], err_msg=site.name)


@pytest.mark.parametrize("family", NAMES)
def test_padding_counts_only_where_it_is_wanted(family_folders: dict[str, Path], family: str) -> None:
    pipe, spec = families.build(family), spec_of(family, padding=False)
    sites = read_sites(family_folders[family], ("text",))
    with raw_inputs(pipe, sites) as raw:
        recording = capture(pipe, sites, spec)
    lengths = [len(tiny.tokenizer()(prompt.text).input_ids) for prompt in PROMPTS]
    for site in sites:
        wanted = expected_energies(site, raw[site.name], len(spec.branches), lengths)
        np.testing.assert_allclose(recording.energies()[site.name], wanted, rtol=1e-4, atol=1e-6, err_msg=site.name)
        for i, length in enumerate(lengths):
            assert np.asarray(recording.tokens_of(i)[site.name])[-1] == length


@pytest.mark.parametrize("family", NAMES)
def test_a_prompt_has_the_energies_that_it_has_alone(family_folders: dict[str, Path], family: str) -> None:
    pipe, spec = families.build(family), spec_of(family)
    sites = read_sites(family_folders[family], KINDS)
    together = capture(pipe, sites, spec).energies()
    for i, prompt in enumerate(PROMPTS):
        for name, found in capture(pipe, sites, spec, [prompt]).energies().items():
            np.testing.assert_allclose(found[0], together[name][i], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("family", NAMES)
def test_a_store_takes_all_kinds_and_gives_each_site_its_energies(
    family_folders: dict[str, Path], family: str, tmp_path: Path
) -> None:
    pipe, spec = families.build(family), spec_of(family, padding=False)
    sites = read_sites(family_folders[family], KINDS)
    recording = capture(pipe, sites, spec)
    store = ActivationStore(Root(str(tmp_path)), "profile", "set")
    store.plan(PROMPTS, sites, captured_timesteps(pipe, spec), spec.branches, {})
    energies = recording.energies()
    for i in range(len(PROMPTS)):
        store.write(i, {name: found[i] for name, found in energies.items()}, recording.tokens_of(i))
    assert store.sites() == sites
    tree = open_activations(store.url)
    for site in sites:
        own = energies[site.source or site.name]
        opened = tree[site.name]["energy"]
        assert opened.dims == (("prompt", "branch", "neuron") if site.once else ("prompt", "step", "branch", "neuron"))
        np.testing.assert_array_equal(opened.values, own, err_msg=site.name)
        found = store.energy(site.name).values
        assert found.shape == (len(PROMPTS), recording.calls, len(spec.branches), site.width)
        for step in range(recording.calls):
            np.testing.assert_array_equal(found[:, step], own if site.once else own[:, step], err_msg=site.name)
    other = ActivationStore(Root(str(tmp_path)), "profile", "copied")
    other.plan(PROMPTS[::-1], sites, captured_timesteps(pipe, spec), spec.branches, {})
    other.copy(store, {0: 1, 1: 0})
    assert other.pending() == damaged_slots(other) == []
    for site in sites:
        np.testing.assert_array_equal(other.energy(site.name)[::-1], store.energy(site.name), err_msg=site.name)


@pytest.mark.parametrize("family", NAMES)
def test_the_masked_columns_are_the_observed_ones(family_folders: dict[str, Path], family: str) -> None:
    """With every neuron of a site pruned its output no longer depends on what is observed there, and only on that."""
    pipe, spec = families.build(family), spec_of(family)
    sites = read_sites(family_folders[family], KINDS)
    masks = {site.name: np.pad(np.ones((site.rows, site.width), bool), ((0, 0), (site.start, 0))) for site in sites}
    before = weights_fingerprint(pipe, {site.component for site in sites})
    with pruned(pipe, masks):
        for site in sites:
            module = linear(pipe, site.name)
            x = torch.randn(5, module.in_features, generator=torch.Generator().manual_seed(0))
            other = x.clone()
            other[:, site.start :] += 1
            torch.testing.assert_close(module(x), module(other), rtol=0, atol=0)
            if site.start:
                other[:, : site.start] += 1
                assert not torch.equal(module(x), module(other))
        generate(pipe, PROMPTS, spec)
    assert weights_fingerprint(pipe, {site.component for site in sites}) == before


@pytest.mark.parametrize("family", NAMES)
def test_patched_weights_survive_saving_and_loading(
    family_folders: dict[str, Path], family: str, tmp_path: Path
) -> None:
    pipe, spec = families.build(family), spec_of(family)
    sites = read_sites(family_folders[family], KINDS)
    random = np.random.default_rng(0)
    masks = {site.name: np.pad(random.random((site.rows, site.width)) < 0.2, ((0, 0), (site.start, 0)))
             for site in sites}  # fmt: skip
    with pruned(pipe, masks):
        wanted = generate(pipe, PROMPTS, spec)
    patch(pipe, masks, weights_fingerprint(pipe, {site.component for site in sites}))
    pipe.save_pretrained(tmp_path)
    loaded = diffusers.DiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    for name, mask in masks.items():
        assert not linear(loaded, name).weight.detach().numpy()[mask].any()
    for one, other in zip(wanted, generate(loaded, PROMPTS, spec), strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("family", NAMES)
def test_fault_1_order_identifies_nothing_where_names_sort_unlike_numbers(family: str, tmp_path: Path) -> None:
    pipe, spec = families.build(family, layers=11), spec_of(family, steps=2)  # 10 sorts before 2
    pipe.save_pretrained(tmp_path)
    sites = read_sites(tmp_path, ("ffn",))
    assert any(re.search(r"\.10\.", site.name) for site in sites)
    with raw_inputs(pipe, sites) as raw:
        energies = capture(pipe, sites, spec).energies()
    for site in sites:
        wanted = expected_energies(site, raw[site.name], len(spec.branches), None)
        np.testing.assert_allclose(energies[site.name], wanted, rtol=1e-4, atol=1e-6, err_msg=site.name)


@pytest.mark.parametrize("family", NAMES)
def test_a_window_ends_the_run_and_leaves_no_hook(family_folders: dict[str, Path], family: str) -> None:
    pipe, spec = families.build(family), spec_of(family)
    sites = read_sites(family_folders[family], ("ffn",))
    full = capture(pipe, sites, spec).energies()
    with record(pipe, sites, len(spec.branches)) as recording:
        assert generate(pipe, PROMPTS, spec, window=2) == []
    assert recording.calls == 2
    for name, found in recording.energies().items():
        np.testing.assert_array_equal(found, full[name][:, :2], err_msg=name)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in denoiser(pipe).modules())
