"""Evaluations: images and numbers by all that made them, resumable, on an edit's own base alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from flows.erase_concept import erase
from flows.evaluate import EvaluateRequest, evaluate, evaluate_all, plan_evaluate
from flows.evaluation_outcome import outcome_of
from flows.plan import make_plan
from flows.protocols import protocols
from flows.steps import Steps
from storage import tables
from storage.listing import latest_edit
from storage.roots import Root, place_at
from tasks.applying import with_edit
from tasks.catalogs import load_catalog
from tasks.diffusion.pipelines import generate, load
from tasks.metrics.classifier import Classifier
from tests.erase_cases import Case, save_judge
from tests.test_flows_cli import cli, refused


def asked(case: Case, store: object, **options: Any) -> EvaluateRequest:
    paths = {name: str(getattr(case, name)) for name in ("model", "catalog", "judge")}
    return EvaluateRequest(**{"concept": "fox", "store": str(store), "device": "cpu", **paths, **options})


def make_edit(case: Case, store: object, concept: str = "fox", sparsity: str = "0.5") -> str:
    options = {"evaluate": False, "sparsity": sparsity, "store": str(store)}
    return erase(make_plan(case.request(Path(), concept).model_copy(update=options)), Steps()).url


@pytest.fixture(scope="module")
def store(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two edits of the fox, the second the latest."""
    folder = tmp_path_factory.mktemp("evaluated") / "store"
    make_edit(case, folder, sparsity="0.2")
    make_edit(case, folder)
    return folder


def run(case: Case, store: object, *words: object) -> Result:
    paths = ["--store", store, "--model", case.model, "--catalog", case.catalog, "--judge", case.judge]
    return cli("evaluate", "fox", *paths, "--device", "cpu", "--no-prefect", *words)


def test_the_numbers_are_the_judges_own_of_images_that_pipelines_draw(case: Case, store: Path) -> None:
    plan = plan_evaluate(asked(case, store))
    outcome = evaluate_all(plan, Steps())
    expected = load_catalog(case.catalog)["fox"].evaluation
    pipe, judge = load(plan.before.model), Classifier(case.judge)
    for part, prompts in (("concept", expected.concept), ("others", expected.others)):
        plain = generate(pipe, [one.prompt for one in prompts], plan.before.capture)
        with with_edit(pipe, plan.edit.path):
            edited = generate(pipe, [one.prompt for one in prompts], plan.before.capture)
        for draw, images in ((plan.before, plain), (plan.after, edited)):
            for one, image in zip(draw.images(prompts), images, strict=True):
                assert np.abs(np.asarray(one).astype(int) - np.asarray(image)).max() <= 1  # a batch may round otherwise
        (row,) = [row for row in outcome.rows if row.part == part and not row.group]
        hits = []
        for draw in (plan.before, plan.after):
            seen = judge.labels(draw.images(prompts))
            hits += [label in found.values() for one, found in zip(prompts, seen, strict=True) for label in one.labels]
        half = len(hits) // 2
        assert (row.before, row.after) == (pytest.approx(np.mean(hits[:half])), pytest.approx(np.mean(hits[half:])))
        assert row.before_low <= row.before <= row.before_high
        assert row.n == half
    (measurement,) = [one for one in outcome.measurements if one["part"] == "concept"]
    assert measurement["about"]["sha256"] == judge.sha256
    assert measurement["draws"]["before"]["edit"] is None
    assert measurement["draws"]["after"]["edit"] == {"edit": plan.edit.id, "manifest": plan.edit.digest}
    assert measurement["draws"]["after"]["safety_checker"] == "off"
    assert measurement["draws"]["after"]["drawing"] == {"steps": 4, "guidance": 4.0, "height": 32, "width": 32}


def test_what_is_there_is_neither_drawn_nor_measured_again(
    case: Case, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_edit(case, root)
    first = run(case, root, "--json")
    assert first.exit_code == 0, first.output
    assert "14 of 14 images to draw" in first.stderr
    document = json.loads(first.stdout)
    for name in ("tasks.diffusion.pipelines.generate", "tasks.metrics.intervals.summarise"):
        monkeypatch.setattr(name, lambda *_: pytest.fail("it was there"))
    again = run(case, root, "--json")
    assert again.exit_code == 0, again.output
    assert "0 of 14 images to draw" in again.stderr
    assert json.loads(again.stdout) == document
    assert tables.read(root, "evaluations").num_rows == len(document["rows"]) == 4
    assert {row["url"] for row in document["rows"]} == {one["url"] for one in document["measurements"]}
    assert all(place_at(row["url"]).exists() for row in document["rows"])


def test_another_edit_draws_only_its_own_images(case: Case, store: Path) -> None:
    evaluate_all(plan_evaluate(asked(case, store)), Steps())
    ids = [edit.id for edit in (latest_edit(str(store), "fox"),) if edit]
    older = next(
        name
        for name in Root(str(store)).path("edits", *_model_of(store), "fox").folders()
        if name not in (*ids, "refs")
    )
    plan = plan_evaluate(asked(case, store, edit=older))
    assert "7 of 14 images to draw" in plan.cost()
    assert plan.before.digest == plan_evaluate(asked(case, store)).before.digest
    assert plan.after.digest != plan_evaluate(asked(case, store)).after.digest
    other_steps = plan_evaluate(asked(case, store, steps=5))
    assert other_steps.before.digest != plan.before.digest


def _model_of(store: Path) -> tuple[str]:
    return ((store / "edits").iterdir().__next__().name,)


def test_a_stopped_evaluation_goes_on_where_it_was(
    case: Case, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "store"))
    shutil.rmtree(copy / "images", ignore_errors=True)
    import tasks.diffusion.pipelines as pipelines

    drawn: list[int] = []
    real = pipelines.generate

    def stop(pipe: Any, prompts: Any, spec: Any, **options: Any) -> Any:
        if len(drawn) == 2:
            raise KeyboardInterrupt
        drawn.append(len(prompts))
        return real(pipe, prompts, spec, **options)

    monkeypatch.setattr(pipelines, "generate", stop)
    result = run(case, copy, "--batch", "2")
    assert result.exit_code == 1
    assert "run the same command again" in result.stderr
    monkeypatch.setattr(pipelines, "generate", real)
    assert f"{14 - sum(drawn)} of 14 images to draw" in run(case, copy, "--batch", "2").stderr


def test_a_file_of_prompts_by_a_protocol(case: Case, store: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("id,sd_seed,prompt\n1,5,a fox of the cat\n2,6,the dog\n", "utf-8")
    result = run(case, store, "--prompt-file", file, "--protocol", "i2p", "--metrics", "nudenet", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    (measurement,) = document["measurements"]
    assert (measurement["part"], measurement["metric"], measurement["prompts"]["n"]) == ("mine", "nudenet", 2)
    assert measurement["about"]["threshold"] == 0.6
    labelled = run(
        case, store, "--prompt-file", file, "--label", "object:fox", "--seeds", "3", "--limit", "1", "--json"
    )
    assert labelled.exit_code == 0, labelled.output
    assert json.loads(labelled.stdout)["measurements"][0]["prompts"]["n"] == 3


@pytest.mark.parametrize("metric", ["fid", "kid", "cmmd", "change"])
def test_distances_are_one_number_between_both(case: Case, store: Path, metric: str) -> None:
    (row, *_) = evaluate_all(plan_evaluate(asked(case, store, metrics=[f"{metric}={case.judge}"])), Steps()).rows
    assert (row.metric, row.before, row.change) == (metric, None, None)
    assert row.after_low <= row.after <= row.after_high
    shown = run(case, store, "--metrics", f"{metric}={case.judge}")
    assert shown.exit_code == 0
    assert "distance" in shown.stdout


def test_an_edit_is_evaluated_on_its_own_base_alone(case: Case, store: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(case.model, tmp_path / "other"))
    config = other / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text("utf-8") + " ", "utf-8")
    words = ["--store", store, "--catalog", case.catalog, "--judge", case.judge, "--model", other, "--no-prefect"]
    refused(cli("evaluate", "fox", *words), "an edit is evaluated on its own base; give that one with --model")


def test_bad_input_is_one_sentence(case: Case, store: Path, tmp_path: Path) -> None:
    def bad(says: str, *words: object) -> None:
        refused(run(case, store, *words), says)

    bad("metric 'beauty' is unknown; choose of classifier, clip-similarity", "--metrics", "beauty")
    bad("metric fid needs a feature extractor; give its folder, as in fid=", "--metrics", "fid")
    bad("metric fid: there is no folder .*nowhere", "--metrics", "fid=nowhere")
    bad(
        "metric copies compares with originals; give their folder with --originals", "--metrics", f"copies={case.judge}"
    )
    bad("has no safety checker to ask; leave the metric safety out", "--metrics", "safety")
    bad(r"metric classifier: \S+ is no model's folder", "--metrics", f"classifier={tmp_path}")
    bad("protocol 'x' is unknown; choose one of artists, ", "--protocol", "x")
    bad("protocol i2p is over a file of yours: the 4,703 prompts of I2P", "--protocol", "i2p")
    bad("no prompts at nowhere.csv; give a file", "--prompt-file", "nowhere.csv")
    file = tmp_path / "a.csv"
    file.write_text("text,seed\nx,1\n", "utf-8")
    bad(r"has no column adv_prompt or prompt; it has text, seed", "--prompt-file", file, "--protocol", "mma-diffusion")
    file.write_text("prompt,seed\nx,one\n", "utf-8")
    bad(r"has the seed 'one', which is no number", "--prompt-file", file)
    (tmp_path / "a.doc").write_text("x", "utf-8")
    bad(r"is no file of prompts; give .txt", "--prompt-file", tmp_path / "a.doc")
    empty = tmp_path / "empty.txt"
    empty.write_text("\n", "utf-8")
    bad(r"has no prompts", "--prompt-file", empty)
    bad("fox has no edit 12345678", "--edit", "12345678")


def test_another_judge_is_another_measurement(case: Case, store: Path, tmp_path: Path) -> None:
    save_judge(tmp_path / "judge", seed=1)
    first = evaluate_all(plan_evaluate(asked(case, store)), Steps())
    second = evaluate_all(plan_evaluate(asked(case, store, judge=str(tmp_path / "judge"))), Steps())
    assert {row.url for row in first.rows}.isdisjoint(row.url for row in second.rows)


def test_a_combined_edit_can_be_evaluated_too(case: Case, tmp_path: Path) -> None:
    for concept in ("fox", "apple"):
        make_edit(case, tmp_path, concept=concept)
    assert cli("combine", "both", "--erase", "fox,apple", "--store", tmp_path, "--no-prefect").exit_code == 0
    file = tmp_path / "p.txt"
    file.write_text("a fox\nthe dog\n", "utf-8")
    words = [*case.options(tmp_path), "--prompt-file", file, "--label", "object:fox", "--no-prefect", "--json"]
    result = cli("evaluate", "both", *words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["concept"] == "both"


def test_protocols_say_what_they_expect_and_where_they_come_from() -> None:
    assert {"artists", "imagenette", "i2p", "mma-diffusion", "ring-a-bell", "coco", "professions", "memorised"} == set(
        protocols()
    )
    assert all(one.expects and one.source and one.metrics and one.prompt for one in protocols().values())


def test_a_tracked_run_finds_the_same_and_leaves_a_table(case: Case, store: Path, prefect_server: None) -> None:
    from prefect.client.orchestration import get_client

    plain = evaluate_all(plan_evaluate(asked(case, store)), Steps())
    assert outcome_of(evaluate(asked(case, store))) == outcome_of(plain.as_json())
    with get_client(sync_client=True) as client:
        kept = client.read_artifacts()
    assert "fox-measurements" in {one.key for one in kept}


def test_images_are_whole_pngs(case: Case, store: Path) -> None:
    plan = plan_evaluate(asked(case, store))
    evaluate_all(plan, Steps())
    prompts = plan.parts[0].expectations()
    with Image.open(plan.after.store().url(prompts[0].prompt.name)) as image:
        assert image.size == (32, 32)
    with pytest.raises(FileNotFoundError, match="was not drawn"):
        plan.after.store().get("0" * 16)
