"""The bundled model: what ships, and that the main path computes on it what DESIGN's method says."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import demo
from flows.config import DEMO, Request
from flows.plan import make_plan
from storage import tensors
from storage.activations import ActivationStore
from storage.edits import Edit
from storage.masks import unpack_masks
from tasks.catalogs import load_catalog
from tasks.diffusion import pipelines
from tasks.diffusion.headers import read_sites
from tasks.diffusion.pruned import pruned
from tasks.diffusion.recorder import record
from tasks.diffusion.sites import linear
from tasks.diffusion.spec import CaptureSpec
from tests.demo_masks import CONCEPTS, GOLDEN, TOLERANCE, cut, jaccard, machine

OTHERS = [concept for concept in CONCEPTS if concept != "fox"]
SPEC = CaptureSpec(steps=4, guidance=4.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def edit(store: Path) -> Callable[[str], Edit]:
    """A concept's edit, made when it is first asked for: each takes 20 s or more."""
    return cache(lambda concept: cut(concept, store))


@pytest.fixture(scope="module")
def pipe() -> object:
    return pipelines.load(Request(concept="fox", store="unused", model=DEMO).model_spec)


def test_it_ships_in_25_megabytes_of_safetensors_without_names_of_a_machine() -> None:
    files = [path for folder in (demo.MODEL, demo.JUDGE) for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 25_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md"}
    assert not [path for path in files if path.suffix == ".json" and "_name_or_path" in path.read_text("utf-8")]


def test_the_catalog_has_ten_concepts_of_both_kinds() -> None:
    concepts = list(load_catalog(demo.CATALOG))
    assert len(concepts) >= 10
    assert {concept.kind for concept in concepts} == {"object", "style"}


def test_every_word_of_the_catalog_is_in_the_vocabulary(pipe: pipelines.Any) -> None:
    unknown = pipe.tokenizer.unk_token_id
    for concept in load_catalog(demo.CATALOG):
        asked = (*concept.evaluation.concept, *concept.evaluation.others)
        for prompt in (*concept.reference.prompts, *concept.target.prompts, *(e.prompt for e in asked)):
            assert unknown not in pipe.tokenizer(prompt.text).input_ids, prompt.text


def test_stored_energies_equal_a_naive_recomputation_from_raw_activations(
    pipe: pipelines.Any, edit: Callable[[str], Edit], store: Path
) -> None:
    edit("fox")
    plan = make_plan(Request(concept="fox", store=str(store), evaluate=False))
    site = read_sites(demo.MODEL, ("ffn",))[3]
    raw: list[np.ndarray] = []
    handle = linear(pipe, site.name).register_forward_pre_hook(lambda module, args: raw.append(args[0].numpy().copy()))
    prompts = plan.concept.target.prompts[:2]
    try:
        pipelines.generate(pipe, prompts, plan.capture.spec, window=plan.capture.spec.window)
    finally:
        handle.remove()
    x = np.stack(raw).astype(np.float64)  # step, (branch, prompt), token, neuron
    naive = (x**2 / (x**2).sum(-1, keepdims=True)).sum(2).reshape(len(raw), 2, len(prompts), -1).transpose(2, 0, 1, 3)
    stored = ActivationStore(store, plan.cut.ranking.profile, plan.concept.target.digest).energy(site.name)
    np.testing.assert_allclose(stored.values[:2], naive, rtol=2e-3, atol=1e-4)  # drawn in another batch
    np.testing.assert_allclose(stored.values.sum(-1), x.shape[2], rtol=1e-4)


def test_observing_changes_no_bit_of_the_image(pipe: pipelines.Any) -> None:
    prompts = load_catalog(demo.CATALOG)["fox"].target.prompts[:2]
    plain = pipelines.generate(pipe, prompts, SPEC)
    with record(pipe, read_sites(demo.MODEL, ("ffn",)), branches=2) as recording:
        observed = pipelines.generate(pipe, prompts, SPEC)
    assert recording.calls == SPEC.steps
    for one, other in zip(plain, observed, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.slow  # another capture
def test_batch_size_changes_no_mask(edit: Callable[[str], Edit], tmp_path: Path) -> None:
    for site, mask in cut("fox", tmp_path, batch=7).masks().items():
        assert np.array_equal(mask, edit("fox").masks()[site]), site


@pytest.mark.parametrize("concept", ["fox", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_golden_masks(edit: Callable[[str], Edit], concept: str) -> None:
    golden = (GOLDEN / f"{concept}.mask.safetensors").read_bytes()
    if json.loads((GOLDEN / "machine.json").read_text()) == machine():
        expected, got = (tensors.decode(data)[0] for data in (golden, edit(concept).read("mask.safetensors")))
        assert {name: value.tobytes() for name, value in got.items()} == {n: v.tobytes() for n, v in expected.items()}
    masks = unpack_masks(*tensors.decode(golden))
    assert set(masks) == set(edit(concept).masks())
    for site, mask in edit(concept).masks().items():
        assert jaccard(mask, masks[site]) >= TOLERANCE, site


def test_the_feed_forwards_matter(pipe: pipelines.Any) -> None:
    """With every feed-forward pruned the picture is another one: the model does not bypass them."""
    prompts = load_catalog(demo.CATALOG)["fox"].evaluation.concept[:2]
    whole = pipelines.generate(pipe, [e.prompt for e in prompts], SPEC)
    sites = read_sites(demo.MODEL, ("ffn",))
    with pruned(pipe, {site.name: np.ones((site.rows, site.width), bool) for site in sites}):
        without = pipelines.generate(pipe, [e.prompt for e in prompts], SPEC)
    for one, other in zip(whole, without, strict=True):
        assert np.abs(np.asarray(one, float) - np.asarray(other, float)).mean() > 10
