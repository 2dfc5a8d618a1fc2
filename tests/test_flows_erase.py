"""Erasing a concept from end to end, held against plain loops over what the store and the model's folder hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from flows.config import Request
from flows.erase_concept import erase, erase_concept
from flows.outcome import Outcome
from flows.plan import make_plan
from flows.steps import Steps
from tasks.concepts.prompts import Prompt
from tasks.diffusion import pipelines
from tasks.diffusion.spec import CaptureSpec, ModelSpec
from tests import erase_cases, tiny
from tests.erase_cases import CATALOG, Case, files


def run(request: Request) -> Outcome:
    """Erase without Prefect."""
    return erase(make_plan(request), Steps())


def pixels(outcome: Outcome, name: str) -> np.ndarray:
    """An edit's image [height, width, colour]."""
    with Image.open(f"{outcome.url}/{name}") as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for the tests that only add to it."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def fox(case: Case, store: Path) -> Outcome:
    """The fox, erased and evaluated."""
    return run(case.request(store))


def test_an_edit_has_its_files(fox: Outcome) -> None:
    found = erase_cases.manifest(fox.url)
    images = {f"images/{part}-{i:03d}-{when}.png" for part, n in (("concept", 3), ("others", 4)) for i in range(n)
              for when in ("before", "after")}  # fmt: skip
    assert set(found["files"]) == {
        "mask.safetensors", "delta.safetensors", "report.json", "images/sheet.png", *images
    }  # fmt: skip
    assert found["edit"] == Path(fox.url).name
    assert found["concept"] == "fox"
    assert pixels(fox, "images/sheet.png").shape[1] > 500
    assert pixels(fox, "images/concept-000-before.png").shape == (32, 32, 3)


def test_the_report_tells_densities_and_what_the_judge_saw(fox: Outcome) -> None:
    report = json.loads((Path(fox.url) / "report.json").read_bytes())
    for site, mask in erase_cases.masks(fox.url).items():
        assert report["sites"][site] == {"width": mask.shape[1], "weights": mask.size, "pruned": int(mask.sum())}
    evaluation = report["evaluation"]
    assert (evaluation["concept"]["n"], evaluation["others"]["n"]) == (3, 8)  # others name an object and a style each
    assert set(evaluation["others"]["groups"]) == {"object", "style"}
    assert set(report["seconds"]) == {"capture", "rank", "mask", "evaluate"}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"t_hat": 3, "sparsity": "0.5"},
        {"t_hat": 3, "vote_share": 0.5},
        {"branch": "cond"},
        {"branch": "uncond", "t_hat": 3, "sparsity": "4%"},
        {"concept": "apple"},
        {"concept": "rose"},  # more reference than target prompts
    ],
    ids=str,
)
def test_masks_are_what_plain_loops_find(case: Case, store: Path, fox: Outcome, options: dict[str, Any]) -> None:
    """The proof of the whole path: energies read by xarray, weights by safetensors, and the method as plain loops."""
    outcome = run(case.request(store, **{"evaluate": False, **options}))
    found, expected = (
        erase_cases.masks(outcome.url),
        erase_cases.recomputed(store, case, erase_cases.manifest(outcome.url)),
    )
    assert set(found) == set(expected)
    for site, mask in expected.items():
        np.testing.assert_array_equal(found[site], mask, err_msg=site)
        assert 0 < mask.sum() < mask.size


def test_fault_13_nothing_but_the_changed_tensors_is_stored(case: Case, fox: Outcome) -> None:
    """The reference code saves the whole UNet for every concept."""
    masks, base = erase_cases.masks(fox.url), erase_cases.weights(case.model)
    delta = load_file(Path(fox.url) / "delta.safetensors")
    assert set(delta) == {f"{site}.weight" for site, mask in masks.items() if mask.any()}
    for name, weight in delta.items():
        assert weight.dtype == base[name].dtype
        np.testing.assert_array_equal(weight, base[name] * ~masks[name.removesuffix(".weight")])
    changed = sum(weight.nbytes for weight in delta.values())
    assert (Path(fox.url) / "delta.safetensors").stat().st_size < changed + 2000


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_narrow_model_gets_a_narrow_delta(case: Case, store: Path, dtype: str) -> None:
    from safetensors.torch import load_file as load_tensors

    outcome = run(case.request(store, dtype=dtype, evaluate=False))
    masks = erase_cases.masks(outcome.url)
    pipe = pipelines.load(case.request(store, dtype=dtype).model_spec)
    for name, weight in load_tensors(Path(outcome.url) / "delta.safetensors").items():
        base = pipe.unet.get_parameter(name.removeprefix("unet."))
        assert weight.dtype == base.dtype
        kept = ~masks[name.removesuffix(".weight")]
        np.testing.assert_array_equal(weight.float().numpy(), base.detach().float().numpy() * kept)


def test_erasing_again_does_nothing_new(case: Case, store: Path, fox: Outcome) -> None:
    before = files(store)
    assert run(case.request(store)).url == fox.url
    folder = f"edits/{Path(fox.url).parent.parent.name}/fox/refs"  # the pointer moves: other tests made newer edits
    after = files(store)
    assert {name for name in after if after[name] != before.get(name)} <= {f"{folder}/latest.json", f"{folder}/.lock"}
    assert json.loads((store / folder / "latest.json").read_bytes())["edit"] == fox.edit


def test_a_second_style_captures_its_targets_only(case: Case, tmp_path: Path) -> None:
    run(case.request(tmp_path, "apple", evaluate=False))
    before = files(tmp_path / "activations")
    plan = make_plan(case.request(tmp_path, "photo", evaluate=False))
    assert plan.missing() == 3
    assert plan.cost() == "capture: 3 prompts x 3 steps, 4 sites, 0.0 MB (3 of 6 prompts are in the store already)"
    erase(plan, Steps())
    after = files(tmp_path / "activations")
    assert {name: after[name] for name in before} == before
    assert {name.split("/")[1] for name in set(after) - set(before)} == {f"{plan.concept.target.digest}.zarr"}


def test_a_run_without_prompts_to_capture_needs_no_capture(case: Case, store: Path, fox: Outcome) -> None:
    before = files(store / "activations")
    run(case.request(store, sparsity="0.3", evaluate=False))
    assert files(store / "activations") == before


PROFILE_CHANGES: list[dict[str, Any]] = [
    {"steps": 5}, {"window": 2}, {"guidance": 5.0}, {"size": 40}, {"dtype": "bfloat16"},
]  # fmt: skip


@pytest.mark.parametrize("change", PROFILE_CHANGES, ids=str)
def test_fault_4_another_way_to_capture_is_another_address(case: Case, tmp_path: Path, change: dict[str, Any]) -> None:
    """The reference code's cache is keyed by a name: changed steps reuse stale norms."""
    one, other = (make_plan(case.request(tmp_path, **options)) for options in ({}, change))
    assert one.cut.ranking.profile != other.cut.ranking.profile
    assert one.cut.draft.edit != other.cut.draft.edit


def test_fault_4_other_prompts_or_another_model_are_another_address(case: Case, tmp_path: Path) -> None:
    plan = make_plan(case.request(tmp_path))
    words = tmp_path / "words.toml"
    words.write_text(CATALOG.replace('fox = "a fox"', 'fox = "the fox"'), "utf-8")
    changed = make_plan(case.request(tmp_path, catalog=str(words)))
    assert changed.cut.ranking.profile == plan.cut.ranking.profile
    assert changed.cut.ranking.reference == plan.cut.ranking.reference
    assert changed.cut.ranking.target != plan.cut.ranking.target
    assert changed.cut.draft.edit != plan.cut.draft.edit
    folder = tmp_path / "other" / case.model.name  # the same name with other weights
    tiny.save(folder, seed=1)
    other = make_plan(case.request(tmp_path, model=str(folder)))
    assert other.cut.ranking.profile != plan.cut.ranking.profile
    assert other.cut.ranking.model != plan.cut.ranking.model


def test_numbers_written_differently_are_one_address(case: Case, tmp_path: Path) -> None:
    written = tmp_path / "written.toml"
    written.write_text(
        CATALOG.replace("guidance = 4", "guidance = 4.0").replace('"0.2"', "0.20\nvote_share = 0"), "utf-8"
    )
    one, other = make_plan(case.request(tmp_path)), make_plan(case.request(tmp_path, catalog=str(written)))
    assert other.cut.draft == one.cut.draft
    assert make_plan(case.request(tmp_path, guidance=4.0, sparsity="20%", vote_share=0.0)).cut.draft == one.cut.draft


def test_fault_5_no_safety_checker_touches_an_image(tmp_path: Path) -> None:
    """It would black images out in silence, and a patch of it would last for the whole process."""
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPTextConfig, CLIPVisionConfig

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = CLIPConfig(
        text_config=CLIPTextConfig(**small, vocab_size=20, projection_dim=4).to_dict(),
        vision_config=CLIPVisionConfig(**small, image_size=32, patch_size=16, projection_dim=4).to_dict(),
        projection_dim=4,
    )
    pipe = tiny.build()
    pipe.register_modules(
        safety_checker=StableDiffusionSafetyChecker(config), feature_extractor=CLIPImageProcessor(size=32, crop_size=32)
    )
    pipe.save_pretrained(tmp_path / "checked")
    tiny.save(tmp_path / "plain")
    assert (tmp_path / "checked" / "safety_checker" / "model.safetensors").is_file()
    forward = StableDiffusionSafetyChecker.forward
    drawn = []
    for name in ("checked", "plain"):
        pipe = pipelines.load(ModelSpec(str(tmp_path / name), device="cpu"))
        assert pipe.safety_checker is None
        images = pipelines.generate(pipe, [Prompt("a fox", 0)], CaptureSpec(steps=2, height=32, width=32))
        drawn.append(np.asarray(images[0]))
    np.testing.assert_array_equal(*drawn)
    assert drawn[0].any()
    assert StableDiffusionSafetyChecker.forward is forward


def test_fault_11_images_of_another_edit_are_never_reused(case: Case, store: Path, fox: Outcome) -> None:
    """The reference code finds images by name: those of an earlier checkpoint are judged as the new one's."""
    other = run(case.request(store, sparsity="0.5", t_hat=3))
    names = [name for name in erase_cases.manifest(fox.url)["files"] if name.startswith("images/concept")]
    same = {name: (Path(fox.url) / name).read_bytes() == (Path(other.url) / name).read_bytes() for name in names}
    assert same == {name: name.endswith("before.png") for name in names}
    assert files(Path(fox.url)).keys() == files(Path(other.url)).keys()


def test_fault_11_another_judge_or_evaluation_is_another_edit(case: Case, store: Path, tmp_path: Path) -> None:
    erase_cases.save_judge(tmp_path / "judge", seed=1)
    words = tmp_path / "words.toml"
    words.write_text(CATALOG.replace('concept = ["{concept}"]', 'concept = ["the {concept}"]'), "utf-8")
    changes = ({}, {"judge": str(tmp_path / "judge")}, {"catalog": str(words)}, {"evaluate": False})
    assert len({make_plan(case.request(store, **change)).cut.draft.edit for change in changes}) == 4


def test_images_are_those_of_the_edit(case: Case, fox: Outcome) -> None:
    from tasks.applying import with_edit

    plan = make_plan(case.request(Path(fox.url), "fox"))
    pipe = pipelines.load(plan.request.model_spec)
    prompts = [expectation.prompt for expectation in plan.concept.evaluation.concept]
    before = pipelines.generate(pipe, prompts, plan.capture.spec)
    with with_edit(pipe, fox.url):
        after = pipelines.generate(pipe, prompts, plan.capture.spec)
    for i in range(len(prompts)):
        for when, image in (("before", before[i]), ("after", after[i])):
            stored = pixels(fox, f"images/concept-{i:03d}-{when}.png")
            np.testing.assert_array_equal(stored, np.asarray(image))


def test_nothing_is_pickled(store: Path, fox: Outcome) -> None:
    suffixes = {path.suffix for path in store.rglob("*") if path.is_file()}
    assert suffixes <= {"", ".json", ".safetensors", ".png", ".lock", ".parquet"}  # chunks have no suffix


def test_a_damaged_edit_is_refused_and_not_shown_as_done(case: Case, tmp_path: Path) -> None:
    outcome = run(case.request(tmp_path, evaluate=False))
    mask = Path(outcome.url) / "mask.safetensors"
    data = bytearray(mask.read_bytes())
    data[-1] ^= 1
    mask.write_bytes(data)
    with pytest.raises(ValueError, match="mask.safetensors of .* .wrong sha256.; delete that folder"):
        run(case.request(tmp_path, evaluate=False))


@pytest.mark.slow  # the server takes 10 to 25 s to start
def test_with_prefect_it_is_the_same_edit(case: Case, fox: Outcome, tmp_path: Path, prefect_server: None) -> None:
    result = erase_concept(case.request(tmp_path))
    assert (result["edit"], result["report"]["sites"]) == (fox.edit, fox.report["sites"])
    assert result["report"]["evaluation"] == fox.report["evaluation"]
    files = erase_cases.manifest(result["url"])["files"]
    expected = erase_cases.manifest(fox.url)["files"]
    assert {name: files[name] for name in files if name != "report.json"} == {
        name: expected[name] for name in expected if name != "report.json"  # it tells seconds
    }  # fmt: skip
