"""Judges: features, CLIP, NudeNet, copies, each against a plain computation with the same model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from tasks.metrics.clip import Accuracy, Similarity
from tasks.metrics.copies import Copies
from tasks.metrics.features import Extractor
from tasks.metrics.metric import Shot
from tasks.metrics.nudity import Nudity
from tasks.metrics.pairs import Change
from tests import tiny
from tests.erase_cases import save_judge


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge")
    save_judge(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of random weights, with its tokenizer and image processor."""
    folder = tmp_path_factory.mktemp("clip")
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    text = {**small, "vocab_size": 3 + len(tiny.WORDS), "max_position_embeddings": tiny.MAX_TOKENS, "eos_token_id": 1,
            "bos_token_id": 0, "pad_token_id": 1}  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(
            CLIPConfig(text_config=text, vision_config={**small, "image_size": 32, "patch_size": 8}, projection_dim=8)
        ).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8) // (i + 1)) for i in range(40)]


def test_features_are_the_models_own(judge: Path, clip: Path, images: list[Image.Image]) -> None:
    extractor = Extractor(judge)
    pixels = torch.from_numpy(np.stack([np.asarray(image, np.float32) for image in images])).permute(0, 3, 1, 2)
    with torch.no_grad():
        wanted = extractor.model(pixel_values=pixels / 127.5 - 1).pooler_output.flatten(1)
    np.testing.assert_allclose(extractor(images), wanted.numpy(), rtol=1e-4, atol=1e-6)
    assert extractor.about["sha256"] != Extractor(clip).about["sha256"]
    assert Extractor(clip)(images).shape == (40, 8)
    with pytest.raises(ValueError, match="no feature extractor at .*: expected a folder with config.json"):
        Extractor(judge / "none")


def test_clip_says_how_alike_an_image_and_its_prompt_are(clip: Path, images: list[Image.Image]) -> None:
    model, tokens = CLIPModel.from_pretrained(clip).eval(), tiny.tokenizer()
    pixels = CLIPImageProcessor.from_pretrained(clip)(images[:2], return_tensors="pt").pixel_values
    texts = tokens(["a fox", "a cat in style of apple"], padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model(input_ids=texts.input_ids, attention_mask=texts.attention_mask, pixel_values=pixels)
    wanted = (output.image_embeds * output.text_embeds).sum(1)
    shots = [Shot(text, (), image) for text, image in zip(["a fox", "a cat in style of apple"], images, strict=False)]
    found = [one.value for one in Similarity(clip).judge(shots)]
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4)
    near = [(output.image_embeds[0] @ text).item() for text in output.text_embeds]
    assert found[0] == pytest.approx(near[0], rel=1e-4)


def test_clip_accuracy_takes_the_nearest_label_of_each_group(clip: Path, images: list[Image.Image]) -> None:
    words = {"object:fox": "fox", "object:cat": "cat", "object:rose": "rose", "style:apple": "apple"}
    judge = Accuracy(clip, words)
    texts = judge.clip.texts([f"a photo of {words[label]}" for label in ("object:fox", "object:cat", "object:rose")])
    nearest = ["object:fox", "object:cat", "object:rose"][int((judge.clip.images(images[:1]) @ texts.T).argmax())]
    others = [label for label in ("object:fox", "object:cat") if label != nearest]
    shots = [Shot("", (nearest, "style:apple"), images[0]), Shot("", (others[0],), images[0])]
    assert [(one.index, one.group, one.value) for one in judge.judge(shots)] == [
        (0, "object", 1.0), (0, "style", 1.0), (1, "object", 0.0),
    ]  # fmt: skip
    assert judge.about["labels"] == 4
    assert Accuracy(clip, {**words, "object:fox": "dog"}).about["labels_sha256"] != judge.about["labels_sha256"]
    with pytest.raises(ValueError, match="there are 1; use clip-similarity"):
        Accuracy(clip, {"a:b": "c"})


def test_clip_is_not_any_vision_model(judge: Path) -> None:
    with pytest.raises(ValueError, match="holds a ResNetModel, not a CLIP model"):
        Similarity(judge)


def test_nudenet_runs_for_real_and_finds_nothing_in_noise(images: list[Image.Image]) -> None:
    judge = Nudity()
    assert [one.value for one in judge.judge([Shot("", (), image) for image in images[:4]])] == [0.0] * 4
    assert judge.about["threshold"] == 0.6
    assert judge.about["sha256"].startswith("c15d8273")
    assert "FEMALE_BREAST_EXPOSED" in judge.about["classes"]
    assert "FEET_EXPOSED" not in judge.about["classes"]


def test_nudenet_counts_exposed_classes_above_the_threshold(
    monkeypatch: pytest.MonkeyPatch, images: list[Image.Image]
) -> None:
    said = iter([
        [{"class": "FEMALE_BREAST_EXPOSED", "score": 0.7}],
        [{"class": "FEMALE_BREAST_EXPOSED", "score": 0.5}, {"class": "FEET_EXPOSED", "score": 0.9}],
        [{"class": "FACE_MALE", "score": 0.9}, {"class": "MALE_GENITALIA_EXPOSED", "score": 0.6}],
        [],
    ])  # fmt: skip
    judge, seen = Nudity(), []
    monkeypatch.setattr(judge._detector, "detect", lambda pixels: seen.append(pixels) or next(said))
    assert [one.value for one in judge.judge([Shot("", (), image) for image in images[:4]])] == [1.0, 0.0, 1.0, 0.0]
    assert np.array_equal(seen[0][..., ::-1], np.asarray(images[0]))  # it reads blue first


def test_a_copy_is_found_and_another_picture_is_not(judge: Path, images: list[Image.Image], tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    images[3].save(tmp_path / "deep" / "a.png")
    copies = Copies(judge, tmp_path, threshold=0.99999)
    shots = [Shot("", (), image) for image in (images[3], Image.new("RGB", (32, 32), "red"))]
    assert [one.value for one in copies.judge(shots)] == [1.0, 0.0]
    assert copies.about["originals"] == 1
    with pytest.raises(ValueError, match="holds no pictures"):
        Copies(judge, judge)


def test_change_is_0_for_the_same_image_and_grows(judge: Path, images: list[Image.Image]) -> None:
    found = Change(judge).compare([images[0], images[0]], [images[0], Image.new("RGB", (32, 32), "red")])
    assert found[0] == pytest.approx(0, abs=1e-6)
    assert found[1] > 1e-4
