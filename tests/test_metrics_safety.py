"""The safety checker's verdict is recorded, and the images stay as they were drawn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor

from flows.erase_concept import erase
from flows.outcome import rows
from flows.plan import make_plan
from flows.steps import Steps
from storage.roots import place_at
from tasks.metrics.safety import SafetyChecker
from tests.erase_cases import Case


def add_checker(folder: Path, threshold: float) -> Path:
    """A checker of random weights; an image as similar as `threshold` to any of its concepts is flagged."""
    small = {"hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = CLIPConfig(vision_config={**small, "image_size": 32, "patch_size": 8}, text_config=small, projection_dim=4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        checker = StableDiffusionSafetyChecker(config)
        checker.concept_embeds.data = torch.randn_like(checker.concept_embeds)
        checker.concept_embeds_weights.data.fill_(threshold)
        checker.special_care_embeds_weights.data.fill_(2)  # above any similarity
    checker.save_pretrained(folder / "safety_checker")
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        folder / "feature_extractor"
    )
    return folder


@pytest.fixture
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8) // (i + 1)) for i in range(20)]


def test_flags_are_those_of_diffusers_pipelines(tmp_path: Path, images: list[Image.Image]) -> None:
    folder = add_checker(tmp_path, 0.0)
    checker = SafetyChecker(folder)
    untouched = [np.asarray(image).copy() for image in images]
    pixels = checker.processor(images, return_tensors="pt").pixel_values
    with torch.no_grad():
        embedded = checker.model.visual_projection(checker.model.vision_model(pixels)[1])
    closest = torch.cosine_similarity(embedded[:, None], checker.model.concept_embeds[None], dim=2).amax(1)
    checker.model.concept_embeds_weights.data.fill_(closest.median())  # half of them are flagged
    wanted = [
        checker.model(images=[np.ones((2, 2, 3), np.float32)], clip_input=pixels[i : i + 1])[1][0] for i in range(20)
    ]
    found = checker.flags(images)
    assert found == wanted
    assert set(found) == {True, False}
    assert all(np.array_equal(np.asarray(image), old) for image, old in zip(images, untouched, strict=True))
    assert SafetyChecker(add_checker(tmp_path / "all", -2.0)).flags(images) == [True] * 20
    assert SafetyChecker(add_checker(tmp_path / "none", 2.0)).flags(images) == [False] * 20
    assert SafetyChecker(tmp_path / "all").sha256 != checker.sha256
    half = SafetyChecker(tmp_path / "all")
    half.model.half().save_pretrained(tmp_path / "half" / "safety_checker", variant="fp16")
    half.processor.save_pretrained(tmp_path / "half" / "feature_extractor")
    assert SafetyChecker(tmp_path / "half", "fp16").flags(images[:3]) == [True] * 3
    with pytest.raises(ValueError, match="has no safety checker"):
        SafetyChecker(tmp_path / "elsewhere")


def test_verdicts_are_in_the_report_and_no_image_is_black(case: Case, tmp_path: Path) -> None:
    plain = erase(make_plan(case.request(tmp_path / "plain")), Steps())
    assert "safety" not in plain.report["evaluation"]
    model = add_checker(Path(shutil.copytree(case.model, tmp_path / case.model.name)), -2.0)
    index = json.loads((model / "model_index.json").read_text("utf-8"))
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    (model / "model_index.json").write_text(json.dumps(index), "utf-8")
    outcome = erase(make_plan(case.request(tmp_path / "checked", model=str(model))), Steps())
    safety = outcome.report["evaluation"]["safety"]
    sha256 = SafetyChecker(model).sha256
    assert safety == {
        part: {"before": list(range(n)), "after": list(range(n)), "n": n, "sha256": sha256}
        for part, n in (("concept", 3), ("others", 4))
    }
    assert ("fox, flagged unsafe", "100%", "100%", "3") in rows(outcome)
    for name in ("concept-000-before.png", "others-003-after.png"):
        first, second = (place_at(f"{one.url}/images/{name}").get() for one in (plain, outcome))
        assert first == second
