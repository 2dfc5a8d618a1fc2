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
import xarray as xr

from flows.config import CatalogRequest, Request
from flows.erase_concept import erase
from flows.plan import make_plan
from flows.rethreshold import cut_all, plan_cuts
from flows.steps import Steps
from storage.activations import ActivationStore
from storage.edits import read_edit_at
from storage.opening import open_activations
from storage.roots import Root
from storage.upkeep import damaged_slots
from tasks.applying import with_edit
from tasks.concepts.prompts import Prompt
from tasks.diffusion.headers import read_sites
from tasks.diffusion.pipelines import captured_timesteps, generate
from tasks.diffusion.pruned import patch, pruned, weights_fingerprint
from tasks.diffusion.recorder import Recording, record
from tasks.diffusion.sites import denoiser, linear
from tasks.diffusion.spec import CaptureSpec, NeuronSite
from tests import families, oracle, tiny

pytestmark = pytest.mark.families

PROMPTS = (Prompt("a photo of a fox", 1), Prompt("rose", 2))  # of unlike lengths
KINDS = ("ffn", "ffn_in", "attn_k", "attn_v", "text")
NAMES = sorted(families.FAMILIES)
RUNS = [(family, scheduler) for family in NAMES for scheduler in families.FAMILIES[family][1]]

UNET_BLOCKS = ["down_blocks.0.attentions.0", "mid_block.attentions.0", "up_blocks.1.attentions.0",
               "up_blocks.1.attentions.1"]  # fmt: skip
SDXL_BLOCKS = ["down_blocks.1.attentions.0", "mid_block.attentions.0", "up_blocks.0.attentions.0",
               "up_blocks.0.attentions.1"]  # fmt: skip
CLIP = ["encoder.layers.0.mlp.fc2", "encoder.layers.1.mlp.fc2"]
PROJECTED = [f"text_model.{name}" for name in CLIP]
T5 = ["encoder.block.0.layer.1.DenseReluDense.wo", "encoder.block.1.layer.1.DenseReluDense.wo"]
FEED = {"ffn": "ff.net.2", "ffn_in": "ff.net.0.proj"}
CROSS = {**FEED, "attn_k": "attn2.to_k", "attn_v": "attn2.to_v"}


def named(component: str, *names: str) -> list[str]:
    return [f"{component}.{name}" for name in names]


def in_blocks(component: str, blocks: Sequence[str], kinds: dict[str, str]) -> dict[str, list[str]]:
    return {kind: [f"{component}.{block}.{module}" for block in blocks] for kind, module in kinds.items()}


EXPECTED: dict[str, dict[str, list[str]]] = {  # by hand, from the classes' printed modules
    "sd1": in_blocks("unet", [f"{block}.transformer_blocks.0" for block in UNET_BLOCKS], CROSS)
    | {"text": named("text_encoder", *CLIP)},
    "sd2": in_blocks("unet", [f"{block}.transformer_blocks.0" for block in UNET_BLOCKS], CROSS)
    | {"text": named("text_encoder", *CLIP)},
    "sdxl": in_blocks("unet", [f"{block}.transformer_blocks.{i}" for block in SDXL_BLOCKS for i in (0, 1)], CROSS)
    | {"text": [*named("text_encoder", *CLIP), *named("text_encoder_2", *PROJECTED)]},
    "pixart": in_blocks("transformer", ["transformer_blocks.0", "transformer_blocks.1"], CROSS)
    | {"text": named("text_encoder", *T5)},
    "sd3": {
        "ffn": named("transformer", "transformer_blocks.0.ff.net.2", "transformer_blocks.0.ff_context.net.2",
                     "transformer_blocks.1.ff.net.2"),
        "ffn_in": named("transformer", "transformer_blocks.0.ff.net.0.proj",
                        "transformer_blocks.0.ff_context.net.0.proj", "transformer_blocks.1.ff.net.0.proj"),
        "attn_k": named("transformer", "transformer_blocks.0.attn.to_k", "transformer_blocks.0.attn.add_k_proj",
                        "transformer_blocks.0.attn2.to_k", "transformer_blocks.1.attn.to_k",
                        "transformer_blocks.1.attn.add_k_proj"),
        "attn_v": named("transformer", "transformer_blocks.0.attn.to_v", "transformer_blocks.0.attn.add_v_proj",
                        "transformer_blocks.0.attn2.to_v", "transformer_blocks.1.attn.to_v",
                        "transformer_blocks.1.attn.add_v_proj"),
        "text": [*named("text_encoder", *PROJECTED), *named("text_encoder_2", *PROJECTED),
                 *named("text_encoder_3", *T5)],
    },
    "flux": {
        "ffn": named("transformer", *(f"transformer_blocks.{i}.{ff}.net.2" for i in (0, 1)
                                      for ff in ("ff", "ff_context")),
                     *(f"single_transformer_blocks.{i}.proj_out" for i in (0, 1))),
        "ffn_in": named("transformer", *(f"transformer_blocks.{i}.{ff}.net.0.proj" for i in (0, 1)
                                         for ff in ("ff", "ff_context")),
                        *(f"single_transformer_blocks.{i}.proj_mlp" for i in (0, 1))),
        "attn_k": named("transformer", *(f"transformer_blocks.{i}.attn.{k}" for i in (0, 1)
                                         for k in ("to_k", "add_k_proj")),
                        *(f"single_transformer_blocks.{i}.attn.to_k" for i in (0, 1))),
        "attn_v": named("transformer", *(f"transformer_blocks.{i}.attn.{v}" for i in (0, 1)
                                         for v in ("to_v", "add_v_proj")),
                        *(f"single_transformer_blocks.{i}.attn.to_v" for i in (0, 1))),
        "text": [*named("text_encoder", *CLIP), *named("text_encoder_2", *T5)],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every family's pipeline, saved."""
    root = tmp_path_factory.mktemp("families")
    for family in NAMES:
        families.build(family).save_pretrained(root / family)
    return {family: root / family for family in NAMES}


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
def test_sites_are_those_of_a_list_by_hand(folders: dict[str, Path], family: str, kind: str) -> None:
    found = read_sites(folders[family], (kind,))
    assert sorted(site.name for site in found) == sorted(EXPECTED[family][kind])
    pipe = families.build(family)
    for site in found:
        module = linear(pipe, site.name)
        assert (site.kind, site.rows, site.inputs) == (kind, module.out_features, module.in_features)
        assert site.start == (module.out_features if "single" in site.name and kind == "ffn" else 0)


@pytest.mark.parametrize(("family", "scheduler"), RUNS)
@pytest.mark.parametrize("guidance", [4.0, 1.0])
def test_energies_equal_a_naive_recomputation_and_the_image_is_unchanged(
    folders: dict[str, Path], family: str, scheduler: str, guidance: float
) -> None:
    pipe, spec = families.build(family, scheduler), spec_of(family, guidance=guidance)
    sites = read_sites(folders[family], KINDS)
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
def test_padding_counts_only_where_it_is_wanted(folders: dict[str, Path], family: str) -> None:
    pipe, spec = families.build(family), spec_of(family, padding=False)
    sites = read_sites(folders[family], ("text",))
    with raw_inputs(pipe, sites) as raw:
        recording = capture(pipe, sites, spec)
    lengths = [len(tiny.tokenizer()(prompt.text).input_ids) for prompt in PROMPTS]
    for site in sites:
        wanted = expected_energies(site, raw[site.name], len(spec.branches), lengths)
        np.testing.assert_allclose(recording.energies()[site.name], wanted, rtol=1e-4, atol=1e-6, err_msg=site.name)
        for i, length in enumerate(lengths):
            assert np.asarray(recording.tokens_of(i)[site.name])[-1] == length


@pytest.mark.parametrize("family", NAMES)
def test_a_prompt_has_the_energies_that_it_has_alone(folders: dict[str, Path], family: str) -> None:
    pipe, spec = families.build(family), spec_of(family)
    sites = read_sites(folders[family], KINDS)
    together = capture(pipe, sites, spec).energies()
    for i, prompt in enumerate(PROMPTS):
        for name, found in capture(pipe, sites, spec, [prompt]).energies().items():
            np.testing.assert_allclose(found[0], together[name][i], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("family", NAMES)
def test_a_store_takes_all_kinds_and_gives_each_site_its_energies(
    folders: dict[str, Path], family: str, tmp_path: Path
) -> None:
    pipe, spec = families.build(family), spec_of(family, padding=False)
    sites = read_sites(folders[family], KINDS)
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
def test_the_masked_columns_are_the_observed_ones(folders: dict[str, Path], family: str) -> None:
    """With every neuron of a site pruned its output no longer depends on what is observed there, and only on that."""
    pipe, spec = families.build(family), spec_of(family)
    sites = read_sites(folders[family], KINDS)
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
def test_patched_weights_survive_saving_and_loading(folders: dict[str, Path], family: str, tmp_path: Path) -> None:
    pipe, spec = families.build(family), spec_of(family)
    sites = read_sites(folders[family], KINDS)
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
def test_a_window_ends_the_run_and_leaves_no_hook(folders: dict[str, Path], family: str) -> None:
    pipe, spec = families.build(family), spec_of(family)
    sites = read_sites(folders[family], ("ffn",))
    full = capture(pipe, sites, spec).energies()
    with record(pipe, sites, len(spec.branches)) as recording:
        assert generate(pipe, PROMPTS, spec, window=2) == []
    assert recording.calls == 2
    for name, found in recording.energies().items():
        np.testing.assert_array_equal(found, full[name][:, :2], err_msg=name)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in denoiser(pipe).modules())


CATALOG = """
format = 1
[capture]
steps = 3
guidance = 4.0
height = 64
width = 64
kinds = ["ffn", "ffn_in", "attn_k", "attn_v", "text"]
[prune]
sparsity = 0.2
t_hat = 2
vote_share = 0.5
[words.object]
cat = "a cat"
dog = "a dog"
fox = "a fox"
rose = "a rose"
[words.style]
photo = "photo"
of = "of"
apple = "apple"
[recipes.object]
reference = "{object} in style of {style}"
target = "{concept} in style of {style}"
pairs = 3
[[concepts]]
slug = "fox"
kind = "object"
"""


def oracle_mask(
    site: NeuronSite, weight: np.ndarray, energies: dict[str, np.ndarray], steps: int, prune: dict[str, Any]
) -> np.ndarray:
    """The mask over all of a Linear's inputs, by plain loops; what is the same at every step is written out."""
    shown = {role: np.repeat(e[:, None], steps, 1) if site.once else e for role, e in energies.items()}
    branches = list(range(shown["target"].shape[2]))
    norms = {role: oracle.norms(e, branches) for role, e in shown.items()}
    found = oracle.mask(
        weight[:, site.start :].tolist(), norms["target"], norms["reference"], prune["sparsity"], prune["t_hat"],
        str(prune["vote_share"]),
    )  # fmt: skip
    return np.pad(np.array(found), ((0, 0), (site.start, 0)))


@pytest.mark.parametrize("family", NAMES)
def test_one_edit_of_all_kinds_is_what_plain_loops_prune(folders: dict[str, Path], family: str, tmp_path: Path) -> None:
    (tmp_path / "zoo.toml").write_text(CATALOG, "utf-8")
    request = Request(
        concept="fox", store=str(tmp_path / "store"), model=str(folders[family]), catalog=str(tmp_path / "zoo.toml"),
        device="cpu", evaluate=False, padding=False,
    )  # fmt: skip
    edit = read_edit_at(erase(make_plan(request), Steps()).url)
    masks, prune, sets = edit.masks(), edit.manifest["prune"], edit.manifest["prompt_sets"]
    sites = read_sites(folders[family], KINDS)
    assert set(masks) == {site.name for site in sites}
    trees = {role: xr.open_datatree(ActivationStore(request.store, edit.manifest["profile"], digest).url,
                                    engine="zarr", consolidated=False, chunks={})
             for role, digest in sets.items()}  # fmt: skip
    base = diffusers.DiffusionPipeline.from_pretrained(folders[family], local_files_only=True)
    for site in sites:
        weight = linear(base, site.name).weight.detach().numpy()
        energies = {role: tree[site.source or site.name]["energy"].values for role, tree in trees.items()}
        steps = trees["target"].sizes["step"]
        np.testing.assert_array_equal(
            masks[site.name], oracle_mask(site, weight, energies, steps, prune), err_msg=site.name
        )
        assert not masks[site.name][:, : site.start].any()
    for name, weight in edit.deltas().items():
        site = name.removesuffix(".weight")
        np.testing.assert_array_equal(
            weight, np.where(masks[site], np.float32(0), linear(base, site).weight.detach().numpy())
        )

    part = cut_all(plan_cuts(CatalogRequest.of(request.model_copy(update={
        "kinds": "ffn,attn_v", "exclude": "*.1.*", "catalog": "demo", "model": "demo",
    }))), Steps())  # fmt: skip
    assert not part.failed
    fewer = read_edit_at(part.rows[0].url).masks()
    assert set(fewer) == {site.name for site in sites if site.kind in ("ffn", "attn_v") and ".1." not in site.name}
    assert all(np.array_equal(mask, masks[name]) for name, mask in fewer.items())

    with with_edit(base, edit.path):
        patched = {name: linear(base, name).weight.detach().clone() for name in masks}
    for name, mask in masks.items():
        assert not patched[name].numpy()[mask].any()
