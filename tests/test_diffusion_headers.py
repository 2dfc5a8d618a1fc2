"""What files say without being loaded, against the loaded modules; and what moves a profile's address."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.diffusion.families import FAMILIES
from tasks.diffusion.headers import profile_of, read_card, read_sites
from tasks.diffusion.spec import CaptureSpec, ModelSpec
from tests import tiny

CAPTURE = CaptureSpec(steps=10, window=5, guidance=4.0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("headers") / "tiny", layers=2)


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the model that a test may change."""
    return shutil.copytree(saved, tmp_path / "tiny")


def profile(folder: Path, capture: CaptureSpec = CAPTURE, **model: Any) -> str:
    return profile_of(read_card(ModelSpec(str(folder), **model), capture.kinds), capture)[0]


def rewrite(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changes}))


@pytest.mark.parametrize("layers", [1, 11])
def test_sites_in_the_headers_are_those_of_the_loaded_modules(tmp_path: Path, layers: int) -> None:
    pipe = tiny.build(layers=layers)
    pipe.save_pretrained(tmp_path)
    row = FAMILIES[0].patterns[0]
    assert row.kind == "ffn"
    assert read_sites(tmp_path, ("ffn",)) == tiny.sites(pipe, row.pattern)
    assert len(tiny.sites(pipe)) == 4 * layers


def test_sites_in_shards_are_found(tmp_path: Path) -> None:
    pipe = tiny.build()
    pipe.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list((tmp_path / "unet").glob("*.safetensors"))) > 1
    assert read_sites(tmp_path, ("ffn",)) == tiny.sites(pipe)


def test_the_card_names_the_model(saved: Path) -> None:
    card = read_card(ModelSpec(str(saved), dtype="float16"), ("ffn",))
    assert card.key == f"tiny-{card.fingerprint[:12]}-float16"
    assert card.id == "tiny"  # not the folder's place on this machine
    assert card.scheduler["_class_name"] == "DDIMScheduler"


def test_an_unknown_architecture_is_refused_with_the_known_ones(folder: Path) -> None:
    rewrite(folder / "model_index.json", unet=["diffusers", "UNet3DConditionModel"])
    with pytest.raises(
        ValueError,
        match=r"known: UNet2DConditionModel, SD3Tr.*, Flux.*, PixArt.*\).*families/.*adding-a-model",
    ):
        read_card(ModelSpec(str(folder)), ("ffn",))


def test_an_unknown_kind_is_refused_with_the_known_ones(saved: Path) -> None:
    with pytest.raises(ValueError, match="has no site kind router; it has attn_k, attn_v, ffn, ffn_in, text"):
        read_sites(saved, ("ffn", "router"))


def test_a_denoiser_without_sites_is_refused(folder: Path) -> None:
    shutil.copy(folder / "vae" / "diffusion_pytorch_model.safetensors", folder / "unet")
    with pytest.raises(ValueError, match="has no Linear of the kinds ffn"):
        read_sites(folder, ("ffn",))


@pytest.mark.parametrize(
    "change",
    [{"steps": 11}, {"window": 6}, {"window": None}, {"guidance": 4.5}, {"guidance": 1.0}, {"height": 64},
     {"width": 64}],
    ids=str,
)  # fmt: skip
def test_fault_4_a_changed_setting_is_a_new_address(saved: Path, change: dict[str, Any]) -> None:
    assert profile(saved, replace(CAPTURE, **change)) != profile(saved)


def test_fault_4_another_dtype_is_a_new_address(saved: Path) -> None:
    assert len({profile(saved, dtype=dtype) for dtype in ("float32", "float16", "bfloat16")}) == 3


def test_fault_4_another_scheduler_is_a_new_address(folder: Path) -> None:
    path = folder / "scheduler" / "scheduler_config.json"
    found = {profile(folder)}
    rewrite(path, beta_end=0.013)
    found.add(profile(folder))
    rewrite(path, beta_end=0.012, _class_name="PNDMScheduler")
    found.add(profile(folder))
    assert len(found) == 3


def test_fault_4_other_weights_are_a_new_address(saved: Path, tmp_path: Path) -> None:
    assert profile(tiny.save(tmp_path / "tiny", layers=2, seed=1)) != profile(saved)


def test_fault_4_another_revision_is_a_new_address(saved: Path) -> None:
    assert profile(saved, revision="0" * 40) != profile(saved)


def test_place_name_and_device_are_no_part_of_the_address(saved: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(saved, tmp_path / "another-name")
    assert profile(elsewhere, device="cuda") == profile(saved, device="cpu")


def test_equal_specs_have_one_address(saved: Path) -> None:
    assert replace(CAPTURE, guidance=4) == CAPTURE
    assert profile(saved, replace(CAPTURE, guidance=4)) == profile(saved)


def test_the_profile_document_says_what_was_captured(saved: Path) -> None:
    card = read_card(ModelSpec(str(saved)), ("ffn",))
    digest, document = profile_of(card, CAPTURE)
    assert len(digest) == 16
    assert document["model"]["fingerprint"] == card.fingerprint
    assert document["capture"]["steps"] == 10
    assert [site["name"] for site in document["sites"]] == [site.name for site in card.sites]
    assert str(saved) not in json.dumps(document)
