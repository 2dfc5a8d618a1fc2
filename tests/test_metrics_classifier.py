"""The judge: a random ResNet with grouped labels, against its logits read by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ResNetConfig, ResNetForImageClassification

from tasks.metrics import classifier
from tasks.metrics.classifier import Classifier, group_of, hits

LABELS = ["object:fox", "style:noto", "object:rose", "object:nothing", "style:blob"]  # groups may alternate


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("metrics") / "judge"
    save(path, LABELS)
    return path


def save(path: Path, labels: list[str], seed: int = 0) -> None:
    config = ResNetConfig(
        embedding_size=4,
        hidden_sizes=[4, 8],
        depths=[1, 1],
        layer_type="basic",
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        ResNetForImageClassification(config).save_pretrained(path)


def images(count: int, size: int = 16) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    low, high = rng.integers(0, 256, (2, count, 1, 1, 3))  # each of other colours, so that answers differ
    pixels = low + (high - low) * rng.random((count, size, size, 1))
    return [Image.fromarray(picture) for picture in pixels.astype(np.uint8)]


def test_labels_are_the_likeliest_of_each_group(folder: Path) -> None:
    model = ResNetForImageClassification.from_pretrained(folder).eval()
    pictures = images(70)  # more than one batch
    found = Classifier(folder).labels(pictures)
    assert len(found) == 70
    for picture, labels in zip(pictures, found, strict=True):
        x = torch.from_numpy(np.asarray(picture, np.float32).transpose(2, 0, 1)) / 127.5 - 1
        logits = model(x[None]).logits[0].tolist()
        for group in ("object", "style"):
            mine = [(logits[i], label) for i, label in enumerate(LABELS) if group_of(label) == group]
            assert labels[group] == max(mine)[1]
    assert len({tuple(labels.values()) for labels in found}) > 1


def test_labels_of_one_group_have_no_prefix(tmp_path: Path) -> None:
    save(tmp_path, ["tench", "church"])
    judge = Classifier(tmp_path)
    assert judge.groups == {"": [0, 1]}
    assert all(labels[""] in {"tench", "church"} for labels in judge.labels(images(3)))


def test_no_images_have_no_labels(folder: Path) -> None:
    assert Classifier(folder).labels([]) == []


def test_images_of_other_modes_are_judged_in_colour(folder: Path) -> None:
    judge, (picture,) = Classifier(folder), images(1)
    assert judge.labels([picture.convert("RGBA")]) == judge.labels([picture])
    assert judge.labels([picture.convert("L")]) == judge.labels([picture.convert("L").convert("RGB")])


def test_the_judge_says_which_it_is(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "judge", LABELS, seed=1)
    one, other = Classifier(folder), Classifier(tmp_path / "judge")
    assert one.name == other.name == "judge"
    assert one.sha256 != other.sha256
    assert len(one.sha256) == 64


def test_a_missing_judge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no judge at .*expected a folder with config.json and model.safetensors"):
        Classifier(tmp_path)


def test_a_judge_is_loaded_once(folder: Path) -> None:
    assert classifier.load(folder) is classifier.load(folder)


def test_hits_compare_a_label_with_its_own_group() -> None:
    seen = [{"object": "object:rose", "style": "style:noto"}, {"object": "object:fox", "style": "style:noto"}]
    expected = [("object:fox",), ("style:noto", "object:fox")]
    assert hits(expected, seen) == [("object", False), ("style", True), ("object", True)]


def test_a_label_of_an_unknown_group_is_a_miss() -> None:
    assert hits([("colour:red",)], [{"object": "object:fox"}]) == [("colour", False)]


def test_fault_7_unequal_lists_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        hits([("object:fox",), ("object:rose",)], [{"object": "object:fox"}])
