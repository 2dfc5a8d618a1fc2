"""Which models are loaded at all, and what their fingerprint knows."""

import shutil
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from tasks.diffusion.sources import fingerprint, model_files, resolve
from tasks.diffusion.spec import ModelSpec
from tests import tiny
from tests.test_import_direction import NO_TORCH, run_python

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(tmp_path_factory.mktemp("sources") / "tiny")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the model that a test may spoil."""
    return shutil.copytree(saved, tmp_path / "tiny")


def refusal(path: str | Path, revision: str | None = None) -> str:
    """The sentence with which a model is refused."""
    with pytest.raises(ValueError, match=".") as caught:
        resolve(ModelSpec(str(path), revision))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_saved_pipeline_is_taken(folder: Path) -> None:
    assert resolve(ModelSpec(str(folder))) == folder


@pytest.mark.parametrize("name", ["unet/weights.bin", "run.py", "vae/old.PT", "text_encoder/deep/inside/x.pkl"])
def test_pickles_and_code_are_refused(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"")
    message = refusal(folder)
    assert name in message
    assert "safe_serialization=True" in message


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    assert "expected a folder with model_index.json" in refusal(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    assert "holds no .safetensors file" in refusal(tmp_path)
    assert "expected a folder" in refusal(tmp_path / "model_index.json")


@pytest.mark.parametrize("path", ["/nowhere/at/all", "./nowhere", "~/nowhere", "nowhere", "no/where/either"])
def test_a_missing_folder_is_refused(path: str) -> None:
    assert refusal(path).startswith(f"no model at {path}; give a folder")


def test_a_hub_id_without_a_revision_is_refused() -> None:
    message = refusal("someone/some-model")
    assert "--revision" in message
    assert "40 hex digits" in message


@pytest.mark.parametrize("revision", ["main", "v1.0", REVISION[:7], REVISION.upper()])
def test_a_revision_that_can_move_is_refused(revision: str) -> None:
    with pytest.raises(ValueError, match="is not a commit; give all 40 hex digits"):
        ModelSpec("someone/some-model", revision)


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> str:
        raise LocalEntryNotFoundError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    message = refusal("someone/some-model", REVISION)
    assert message.startswith("could not fetch someone/some-model at 0123456789ab")


def test_a_hub_snapshot_is_checked_too(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    asked = {}

    def download(name: str, revision: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.update(name=name, revision=revision, patterns=allow_patterns, unwanted=ignore_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    spec = ModelSpec("someone/some-model", REVISION)
    assert resolve(spec) == folder
    assert asked["revision"] == REVISION
    assert not {"*", "*.bin", "*.py"} & set(asked["patterns"])
    assert "*.safetensors" not in asked["patterns"]  # single-file checkpoints at the root are gigabytes of their own
    assert "*.fp16.*" in asked["unwanted"]
    (folder / "unet" / "pipeline.py").touch()
    assert "unet/pipeline.py" in refusal(spec.path, REVISION)


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("offset", [0, 1000, -1])
def test_the_fingerprint_knows_every_byte_of_the_weights(folder: Path, offset: int) -> None:
    before = fingerprint(folder)
    flip(folder / "unet" / "diffusion_pytorch_model.safetensors", offset)
    assert fingerprint(folder) != before


@pytest.mark.parametrize(
    "name",
    ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json", "tokenizer/tokenizer.json",
     "text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors"],
)  # fmt: skip
def test_the_fingerprint_knows_every_file(folder: Path, name: str) -> None:
    before = fingerprint(folder)
    flip(folder / name, -1)
    changed = fingerprint(folder)
    assert changed != before
    (folder / name).unlink()
    assert fingerprint(folder) not in {before, changed}


def test_the_fingerprint_knows_names(folder: Path) -> None:
    before = fingerprint(folder)
    (folder / "unet" / "config.json").rename(folder / "unet" / "settings.json")
    assert fingerprint(folder) != before


def test_the_fingerprint_does_not_know_place_time_or_readme(saved: Path, folder: Path) -> None:
    before = fingerprint(saved)
    assert fingerprint(folder) == before
    (folder / "unet" / "config.json").touch()
    (folder / "README.md").write_text("# A model")
    (folder / "sample.png").write_bytes(b"\x89PNG")
    assert fingerprint(folder) == before


def test_models_are_read_without_torch(saved: Path) -> None:
    run_python(
        "from tasks.diffusion import sources\n"
        "from tasks.diffusion.headers import read_card\n"
        "from tasks.diffusion.spec import ModelSpec\n"
        f"card = read_card(ModelSpec({str(saved)!r}), ['ffn'])\n"
        f"assert len(card.sites) == 4, card.sites\n{NO_TORCH}"
    )


def keep(folder: Path, *names: str) -> Path:
    """A pipeline's folder with empty weights of these names, "<component>/<file>"."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    (folder / "model_index.json").write_text("{}", "utf-8")
    return folder


def test_the_files_of_a_variant_and_no_other_count(tmp_path: Path) -> None:
    unet = ["unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors"]
    shards = [
        "text_encoder/model-00001-of-00002.safetensors",
        "text_encoder/model-00002-of-00002.safetensors",
        "text_encoder/model.fp16-00001-of-00002.safetensors",
        "text_encoder/model-00002-of-00002.fp16.safetensors",
    ]
    folder = keep(tmp_path / "both", *unet, *shards, "vae/diffusion_pytorch_model.safetensors")
    names = {variant: [path.relative_to(folder).as_posix() for path in model_files(folder, variant)
                       if path.suffix == ".safetensors"] for variant in (None, "fp16")}  # fmt: skip
    assert names[None] == sorted([unet[0], *shards[:2], "vae/diffusion_pytorch_model.safetensors"])
    assert names["fp16"] == sorted([unet[1], *shards[2:], "vae/diffusion_pytorch_model.safetensors"])
    assert fingerprint(folder) != fingerprint(folder, "fp16")
    alone = keep(tmp_path / "alone", unet[0], *shards[:2], "vae/diffusion_pytorch_model.safetensors")
    assert fingerprint(folder) == fingerprint(alone)


@pytest.mark.parametrize(
    ("names", "variant"),
    [
        (["unet/m.safetensors"], "fp16"),
        (["unet/m.fp16.safetensors"], None),
        (["unet/m.safetensors", "vae/m.fp16.safetensors"], None),
    ],
)
def test_a_variant_that_is_not_there_is_refused(tmp_path: Path, names: list[str], variant: str | None) -> None:
    folder = keep(tmp_path, *names)
    with pytest.raises(ValueError, match=r"has weights of these variants: .*; choose one with --variant, or none"):
        resolve(ModelSpec(str(folder), variant=variant))
    with pytest.raises(ValueError, match=r"variant '../x' is unknown; give the word in the files' names, such as fp16"):
        ModelSpec(str(folder), variant="../x")
