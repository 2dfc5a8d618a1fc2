"""Loading and drawing: no safety checker, each prompt's own seed, and the files as they are now."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPConfig

from tasks.concepts.prompts import Prompt
from tasks.diffusion import pipelines
from tasks.diffusion.pipelines import captured_timesteps, choose_device, generate, load, timesteps
from tasks.diffusion.pruned import weights_fingerprint
from tasks.diffusion.spec import CaptureSpec, ModelSpec
from tests import tiny

SPEC = CaptureSpec(steps=3)
FOX = Prompt("a photo of a fox", 11)


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny.build()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tiny.save(tmp_path / "tiny")
    pipelines._load.cache_clear()


def spec_of(folder: Path, dtype: str = "float32") -> ModelSpec:
    return ModelSpec(str(folder), dtype=dtype, device="cpu")


def pixels(pipe: Any, *prompts: Prompt, spec: CaptureSpec = SPEC) -> list[np.ndarray]:
    return [np.asarray(image).astype(int) for image in generate(pipe, prompts, spec)]


def add_safety_checker(folder: Path) -> None:
    """Give the saved pipeline a safety checker, as Stable Diffusion 1.x ships with one."""
    small = {"hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = CLIPConfig(vision_config={**small, "image_size": 32}, text_config=small, projection_dim=4)
    StableDiffusionSafetyChecker(config).save_pretrained(folder / "safety_checker")
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["requires_safety_checker"] = True
    (folder / "model_index.json").write_text(json.dumps(index))


def test_fault_5_no_safety_checker_and_the_process_is_not_patched(folder: Path) -> None:
    expected = pixels(load(spec_of(folder)), FOX)[0]
    add_safety_checker(folder)
    of_the_classes = StableDiffusionPipeline.run_safety_checker, StableDiffusionSafetyChecker.forward
    pipe = load(spec_of(folder))
    assert pipe.safety_checker is None
    np.testing.assert_array_equal(pixels(pipe, FOX)[0], expected)
    assert of_the_classes == (StableDiffusionPipeline.run_safety_checker, StableDiffusionSafetyChecker.forward)


def test_fault_6_every_prompt_has_its_own_seed(pipe: Any) -> None:
    alone = pixels(pipe, FOX)[0]
    others = [Prompt("a rose", 5), Prompt("", 6), Prompt("a dog", 7)]
    for position in range(4):
        batch = [*others[:position], FOX, *others[position:]]
        assert np.abs(pixels(pipe, *batch)[position] - alone).max() <= 1  # of 255: a rounding may fall the other way
    again, other_seed, other_text = pixels(pipe, FOX, Prompt(FOX.text, 12), Prompt("a rose of the apple", FOX.seed))
    assert np.abs(again - alone).max() <= 1
    assert np.abs(other_seed - alone).max() > 1
    assert np.abs(other_text - alone).max() > 1


def test_fault_6_the_process_s_own_randomness_is_neither_used_nor_moved(pipe: Any) -> None:
    torch.manual_seed(0)
    first = pixels(pipe, FOX)[0]
    state = torch.get_rng_state()
    torch.manual_seed(1)
    np.testing.assert_array_equal(pixels(pipe, FOX)[0], first)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_largest_seed_will_do(pipe: Any) -> None:
    assert len(pixels(pipe, Prompt("a cat", 2**63 - 1))) == 1


def test_a_window_decodes_nothing(pipe: Any) -> None:
    assert generate(pipe, [FOX], SPEC, window=2) == []


def test_images_have_the_size_that_was_asked_for(pipe: Any) -> None:
    assert generate(pipe, [FOX], SPEC)[0].size == (32, 32)
    assert generate(pipe, [FOX], CaptureSpec(steps=1, height=64, width=48))[0].size == (48, 64)


def test_a_window_longer_than_the_run_is_refused() -> None:
    pipe = tiny.build("pndm")
    every = timesteps(pipe, CaptureSpec(steps=10))
    assert captured_timesteps(pipe, CaptureSpec(steps=10)) == every
    assert captured_timesteps(pipe, CaptureSpec(steps=10, window=11)) == every  # PNDM makes 11 calls
    assert captured_timesteps(pipe, CaptureSpec(steps=10, window=3)) == every[:3]
    with pytest.raises(ValueError, match="window is 12; the scheduler makes 11 denoiser calls for 10 steps"):
        captured_timesteps(pipe, CaptureSpec(steps=10, window=12))


def test_a_model_is_loaded_once(folder: Path) -> None:
    assert load(spec_of(folder)) is load(spec_of(folder))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_model_is_loaded_in_the_dtype_that_was_asked_for(folder: Path, dtype: str) -> None:
    pipe = load(spec_of(folder, dtype))
    assert {str(parameter.dtype) for parameter in pipe.unet.parameters()} == {f"torch.{dtype}"}


def test_fault_4_changed_files_are_loaded_again(folder: Path) -> None:
    before = weights_fingerprint(load(spec_of(folder)), ["unet"])
    shutil.rmtree(folder)
    tiny.save(folder, seed=1)
    assert weights_fingerprint(load(spec_of(folder)), ["unet"]) != before


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no model at"):
        load(spec_of(tmp_path / "nowhere"))


def test_the_device_that_was_asked_for_is_taken() -> None:
    assert choose_device("cpu") == "cpu"
    assert choose_device("auto") in {"cuda", "mps", "cpu"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_here_is_refused() -> None:
    with pytest.raises(ValueError, match="finds no CUDA here; use cpu or auto"):
        choose_device("cuda:1")
