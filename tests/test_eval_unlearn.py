"""The benchmark eval-unlearn, the real package, with our technique: found, run, and drawing what the edit draws."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import demo
from flows.config import Request
from flows.erase_concept import erase
from flows.plan import make_plan
from flows.steps import Steps
from storage.edits import Edit, read_edit_at
from tasks.applying import with_edit
from tasks.concepts.prompts import Prompt
from tasks.diffusion.pipelines import generate, load
from tasks.diffusion.spec import CaptureSpec, ModelSpec
from tasks.eval_unlearn import ConceptPruneTechnique
from tests import tiny
from tests.eval_unlearn_cases import RETAIN, TARGET, Gallery, pixels, prompts_files, same, stand_in_clip

SEED, STEPS, GUIDANCE = 7, 2, 5.0  # none of them a default
LONG = "a fox in the style of blob on a blue background " * 3  # 33 words: the bundled model reads 16 tokens


@pytest.fixture(scope="module")
def edit(tmp_path_factory: pytest.TempPathFactory) -> Edit:
    """The bundled model's fox, from four pairs of prompts and two steps."""
    folder = tmp_path_factory.mktemp("benchmark")
    catalog = folder / "short.toml"
    catalog.write_text(demo.CATALOG.read_text("utf-8").replace("pairs = 40", "pairs = 4"), "utf-8")
    asked = Request(
        concept="fox", catalog=str(catalog), store=str(folder / "store"), steps=2, window=2, t_hat=2, sparsity="0.5",
        evaluate=False,
    )  # fmt: skip
    return read_edit_at(erase(make_plan(asked), Steps()).url)


@pytest.fixture
def config(edit: Edit) -> dict[str, Any]:
    """The technique's config in a benchmark's file."""
    drawn = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "device": "cpu"}
    return {"erase_concept": "fox", "model": str(demo.MODEL), "url": edit.path.url, **drawn}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[np.ndarray]]:
    """The benchmark's own runner, over a technique and the gallery: the images, in the order of the prompts."""
    from eval_unlearn.registry import register_metric
    from eval_unlearn.runners import SingleBenchmarkRunner

    monkeypatch.delenv("HF_TOKEN", raising=False)  # free_run would log in with it
    register_metric("gallery")(Gallery)
    paths = prompts_files(tmp_path)

    def images(technique: str, config: dict[str, Any], seed: int | None = SEED) -> list[np.ndarray]:
        runner = SingleBenchmarkRunner(technique, "gallery", config, paths, str(tmp_path / technique), seed)
        report = runner.run()
        assert (report["technique_name"], report["metric_result"]["value"]) == (technique, len(TARGET + RETAIN))
        assert Gallery.prompts == TARGET + RETAIN
        return Gallery.images

    return images


def drawn(seed: int, edit: Edit | None = None) -> list[np.ndarray]:
    """What our own code draws, an image at a time: of two prompts the first from `seed`, the other from the next."""
    pipe = load(ModelSpec(str(demo.MODEL), device="cpu"))
    prompts = [Prompt(text, seed + i % 2) for i, text in enumerate(TARGET + RETAIN)]
    spec = CaptureSpec(steps=STEPS, guidance=GUIDANCE)
    with nullcontext() if edit is None else with_edit(pipe, edit.path.url):
        return [image for prompt in prompts for image in pixels(generate(pipe, [prompt], spec))]


def test_the_registry_finds_the_technique() -> None:
    from eval_unlearn.registry import get_technique
    from eval_unlearn.registry.entrypoints import load_entrypoints

    load_entrypoints()
    assert get_technique("conceptprune") is ConceptPruneTechnique


# The benchmark's free_run 1.1.2 loads its pipeline so; ours does not.
@pytest.mark.filterwarnings("ignore:`torch_dtype` is deprecated:FutureWarning")
def test_the_runner_draws_with_the_edit(
    run: Callable[..., list[np.ndarray]], config: dict[str, Any], edit: Edit, tmp_path: Path
) -> None:
    images = run("conceptprune", config)
    assert all(same(images, drawn(SEED, edit)))
    plain = drawn(SEED)
    assert not any(same(images, plain))
    base = {name: value for name, value in config.items() if name not in ("erase_concept", "model", "url")}
    assert all(same(run("free_run", {**base, "model_id": str(demo.MODEL)}), plain))  # the benchmark's own, no edit
    saved = [sorted((tmp_path / "conceptprune").glob(f"*/images/{part}/*.png")) for part in ("target", "retain")]
    assert all(same([pixels([Image.open(path)])[0] for path in sum(saved, [])], images))
    reports = [json.loads(path.read_text("utf-8")) for path in (tmp_path / "conceptprune").glob("*fox_latest*.json")]
    assert [report["erase_concept"] for report in reports] == ["fox"]


def test_the_configs_seed_counts_where_the_runner_gives_none(
    run: Callable[..., list[np.ndarray]], config: dict[str, Any], edit: Edit
) -> None:
    assert all(same(run("conceptprune", {**config, "seed": 3}, seed=None), drawn(3, edit)))
    assert all(same(run("conceptprune", {**config, "seed": 3}), drawn(SEED, edit)))


def test_a_call_may_choose_steps_and_guidance(config: dict[str, Any]) -> None:
    technique = ConceptPruneTechnique(**{**config, "num_inference_steps": 1, "guidance_scale": 1.0})
    own = pixels(technique.generate(TARGET, SEED))
    asked = pixels(technique.generate(TARGET, seed=SEED, num_inference_steps=STEPS, guidance_scale=GUIDANCE))
    assert not any(same(own, asked))
    assert all(same(asked, pixels(ConceptPruneTechnique(**config).generate(TARGET, SEED))))


def test_the_edit_may_be_named_in_its_store(config: dict[str, Any], edit: Edit) -> None:
    wanted = pixels(ConceptPruneTechnique(**config).generate(TARGET, SEED))
    store = {"store": edit.path.url.partition("/edits/")[0]}
    rest = {name: value for name, value in config.items() if name != "url"}
    for other in (store, {**store, "edit": edit.id}, {**store, "erase_concept": "animals", "concept": "fox"}):
        assert all(same(pixels(ConceptPruneTechnique(**(rest | other)).generate(TARGET, SEED)), wanted))
    for other, says in (
        ({"edit": "12345678"}, "fox has no edit"),
        ({"erase_concept": "animals"}, "no edit of animals"),
    ):
        with pytest.raises(ValueError, match=says):
            ConceptPruneTechnique(**(rest | store | other))


def test_batches_draw_from_the_same_seeds(config: dict[str, Any]) -> None:
    one_by_one = pixels(ConceptPruneTechnique(**config).generate(TARGET, SEED))
    two_by_two = pixels(ConceptPruneTechnique(**config, batch=2).generate(TARGET, SEED))
    np.testing.assert_allclose(np.int_(two_by_two), np.int_(one_by_one), atol=2)  # a batch may round otherwise


def test_without_a_seed_torchs_own_counts_and_long_prompts_are_cut(config: dict[str, Any]) -> None:
    technique = ConceptPruneTechnique(**config)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        one = pixels(technique.generate(["a fox", LONG]))
        two = pixels(technique.generate(["a fox", LONG]))
        torch.manual_seed(1)
        assert all(same(one, pixels(technique.generate(["a fox", LONG]))))
    assert not any(same(one, two))


def test_another_base_is_refused_by_the_runner(
    run: Callable[..., list[np.ndarray]], config: dict[str, Any], tmp_path: Path
) -> None:
    other = tiny.save(tmp_path / "other")
    with pytest.raises(ValueError, match=r"^this pipeline's weights .* are not those that the edit was made for .*"):
        run("conceptprune", {**config, "model": str(other)})
    assert Gallery.images == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"url": "nowhere"}, "nowhere has no manifest.json, so it is not an edit"),
        ({"url": None, "store": "nowhere"}, "there is no edit of fox in .*nowhere; run conceptprune erase fox first"),
        ({"url": None}, "give either url, the edit's folder, or store"),
        ({"store": "both"}, "give either url, the edit's folder, or store"),
        ({"edit": "12345678"}, "edit names one of a store's edits, and url is one edit"),
        ({"erase_concept": "nudity"}, "the edit at .* is of fox, not of nudity; set concept if it is meant"),
        ({"erase_concept": ""}, "erase_concept: String should have at least 1 character"),
        ({"guidence_scale": 3}, "guidence_scale is unknown; did you mean guidance_scale?"),
        ({"num_inference_steps": "many"}, "num_inference_steps: Input should be a valid integer"),
        ({"dtype": "fp16"}, "dtype 'fp16' is unknown; use float32, float16 or bfloat16"),
        ({"model": "./nowhere"}, "no model at ./nowhere; give a folder that diffusers saved"),
    ],
)
def test_a_wrong_config_is_one_sentence(config: dict[str, Any], change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        ConceptPruneTechnique(**{**config, **change})
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_benchmarks_command_line_runs_its_own_metric(config: dict[str, Any], edit: Edit, tmp_path: Path) -> None:
    """In a process of its own, offline: ua_ira takes a folder of this name for the CLIP that it would fetch."""
    stand_in_clip(tmp_path / "openai" / "clip-vit-base-patch32")
    concepts = {"target_concept": "fox", "retain_concept": "cat"}
    metric = {**prompts_files(tmp_path), **concepts, "clip_model_name": "openai/clip-vit-base-patch32"}
    asked = {
        "technique": {"name": "conceptprune", "config": {**config, "seed": SEED}},
        "metrics": [{"name": "ua_ira", "config": metric}],
    }
    (tmp_path / "config.json").write_text(json.dumps(asked), "utf-8")
    command = Path(sys.executable).with_name("eval-unlearn")
    own = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
    done = subprocess.run(
        [command, "run", "--config", "config.json"],
        cwd=tmp_path, env={**own, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "results" / "conceptprune_fox_latest_report.json").read_text("utf-8"))
    details = report["metric_results"]["ua_ira"]["details"]
    assert (details["target_total"], details["retain_total"]) == (len(TARGET), len(RETAIN))
    saved = [sorted(tmp_path.glob(f"results/*/images/{part}/*.png")) for part in ("target", "retain")]
    with with_edit(load(ModelSpec(str(demo.MODEL), device="cpu")), edit.path.url) as pipe:
        prompts = [Prompt(text, SEED + i) for i, text in enumerate(TARGET + RETAIN)]  # one batch: seeds count through
        wanted = [generate(pipe, [one], CaptureSpec(steps=STEPS, guidance=GUIDANCE))[0] for one in prompts]
    assert all(same([pixels([Image.open(path)])[0] for path in sum(saved, [])], pixels(wanted)))
