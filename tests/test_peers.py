"""The peers do what their papers say, leave the pipeline as it was, and their comparison goes on where it stopped."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

import demo
from tasks.catalogs import load_catalog
from tasks.concepts.catalog import Catalog, parse_catalog
from tasks.concepts.concept import Concept, EvaluationSet
from tasks.concepts.prompts import Prompt, PromptSet
from tasks.diffusion import pipelines
from tasks.diffusion.sites import linear
from tasks.diffusion.spec import ModelSpec
from tests import tiny
from tests.benchmarks.peers import __main__ as peers
from tests.benchmarks.peers import judging, results, uce, wording
from tests.benchmarks.peers.changes import Change
from tests.benchmarks.peers.esd import Settings as EsdSettings
from tests.benchmarks.peers.esd import denoise, esd, opposite, prompts
from tests.benchmarks.peers.random_pruning import random_masks, smallest_masks, zeroed
from tests.benchmarks.peers.undo import undone

CATALOG = b"""
format = 1
[recipes.object]
reference = "a photo of {object}"
target = "a photo of {concept}"
pairs = 2
[words.object]
cat = "a cat"
dog = "a dog"
fox = "a fox"
[[concepts]]
slug = "fox"
kind = "object"
[[concepts]]
slug = "cat"
kind = "object"
"""


@pytest.fixture
def pipe() -> Any:
    return tiny.build()


@pytest.fixture
def catalog() -> Catalog:
    return parse_catalog(CATALOG, "mine.toml")


@pytest.fixture(scope="module")
def bundled() -> Any:
    return pipelines.load(ModelSpec(str(demo.MODEL)))


def state(pipe: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in pipe.unet.state_dict().items()}


def assert_same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(got) == set(expected)
    assert [name for name in expected if not torch.equal(got[name], expected[name])] == []


def pair(target: str, reference: str) -> Concept:
    without, given = (PromptSet((Prompt(text, 0),)) for text in (reference, target))
    return Concept("fox", "object", without, given, EvaluationSet((), ()))


def encoded(pipe: Any, text: str) -> np.ndarray:
    """[token, width] as the pipeline itself encodes it."""
    with torch.no_grad():
        return pipe.encode_prompt(text, "cpu", 1, False)[0][0].double().numpy()


# -- words


def test_a_concept_is_found_where_its_words_are(pipe: Any) -> None:
    assert wording.last_token(pipe, "a photo of a fox", "a fox") == 5
    assert wording.last_token(pipe, "the fox in the style of a fox", "a fox") == 8
    assert wording.last_token(pipe, "the fox of a photo", "a fox") == 2
    assert wording.last_token(pipe, "a photo of a cat", "a fox") is None


def test_what_is_kept_says_nothing_of_the_concept(pipe: Any, catalog: Catalog) -> None:
    keep = wording.other_texts(pipe, catalog, "fox")
    assert set(keep) == {"", "a cat", "a dog", "a photo of a cat", "a photo of a dog"}
    assert len(keep) == 5
    assert wording.words_of(catalog, "fox") == "a fox"


# -- UCE


@pytest.mark.parametrize("tokens", ["last", "rest"])
@pytest.mark.parametrize("neutral", ["reference", "empty"])
def test_uce_solves_the_least_squares_of_its_three_terms(
    pipe: Any, catalog: Catalog, neutral: Any, tokens: Any
) -> None:
    settings = uce.Settings(neutral, tokens, erase=2.0, preserve=0.7, ridge=0.03)
    keep = ["", "a cat", "a photo of a dog"]
    change = uce.uce(pipe, catalog["fox"], "a fox", keep, settings)

    erased, aims = [], []
    for target, reference in zip(catalog["fox"].target.prompts, catalog["fox"].reference.prompts, strict=True):
        assert target.text == "a photo of a fox"  # <start> a photo of a fox <end> <end>: fox is the fifth
        start = 1 if neutral == "empty" else 5
        count = 1 if tokens == "last" else 3
        erased.append(encoded(pipe, target.text)[5 : 5 + count])
        aims.append(encoded(pipe, "" if neutral == "empty" else reference.text)[start : start + count])
    c, to, kept = np.concatenate(erased), np.concatenate(aims), np.concatenate([encoded(pipe, text) for text in keep])
    weights = np.sqrt([2.0 / len(c), 0.7 / len(kept), 0.03])
    names = [name for name in pipe.unet.state_dict() if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))]
    assert len(names) == 8
    assert set(change.tensors) == {f"unet.{name}" for name in names}
    for name in names:
        w = pipe.unet.state_dict()[name].double().numpy()
        x = np.concatenate([weight * rows for weight, rows in zip(weights, [c, kept, np.eye(w.shape[1])], strict=True)])
        y = np.concatenate(
            [weight * rows @ w.T for weight, rows in zip(weights, [to, kept, np.eye(w.shape[1])], strict=True)]
        )
        expected = np.linalg.lstsq(x, y)[0].T
        np.testing.assert_allclose(change.tensors[f"unet.{name}"].numpy(), expected, rtol=1e-4, atol=1e-6)


def test_uce_moves_the_concept_to_the_neutral_and_leaves_the_rest(bundled: Any) -> None:
    keep = ["", "a panda", "a dog in the style of noto", "a rocket on a blue background"]
    concept = pair("a fox", "a cat")
    change = uce.uce(bundled, concept, "a fox", keep, uce.Settings(ridge=1e-5))
    fox, cat = (encoded(bundled, text)[2:] for text in ("a fox", "a cat"))
    kept = np.concatenate([encoded(bundled, text) for text in keep])
    for name, tensor in change.tensors.items():
        w = linear(bundled, name.removesuffix(".weight")).weight.detach().double().numpy()
        edited = tensor.double().numpy()
        assert np.linalg.norm((fox - cat) @ w.T) > 0.1 * np.linalg.norm(cat @ w.T)  # there was something to move
        assert np.linalg.norm(fox @ edited.T - cat @ w.T) < 0.01 * np.linalg.norm((fox - cat) @ w.T)
        assert np.linalg.norm(kept @ (edited - w).T) < 0.01 * np.linalg.norm(kept @ w.T)


def test_other_embeddings_undo_uce(bundled: Any) -> None:
    concept, settings = pair("a fox", "a cat"), uce.Settings()
    matrix = uce.transform(uce.directions(bundled, concept, "a fox", [""], settings), settings)
    given = wording.embed(bundled, ["a fox on a blue background"])
    for name, tensor in uce.uce(bundled, concept, "a fox", [""], settings).tensors.items():
        base = linear(bundled, name.removesuffix(".weight")).weight.detach()
        assert not torch.allclose(given @ tensor.T, given @ base.T, atol=1e-2)
        torch.testing.assert_close(undone(given, matrix) @ tensor.T, given @ base.T, rtol=1e-3, atol=1e-3)


def test_uce_leaves_out_pairs_that_do_not_differ(pipe: Any) -> None:
    same = PromptSet((Prompt("a fox", 0),))
    concept = Concept("fox", "object", same, same, EvaluationSet((), ()))
    with pytest.raises(ValueError, match="no target prompt of fox differs"):
        uce.uce(pipe, concept, "a fox", [""], uce.Settings())
    with pytest.raises(ValueError, match="does not say 'a rose'"):
        uce.uce(pipe, pair("a fox", "a cat"), "a rose", [""], uce.Settings())


# -- ESD-x


def test_esd_is_told_the_words_alone_where_prompts_begin_with_them(catalog: Catalog) -> None:
    fox = pair("a fox in the style of the cat", "a dog in the style of the cat")
    assert prompts(fox, "a fox") == ["a fox"]
    assert prompts(fox, "cat") == ["a fox in the style of the cat"]
    assert prompts(catalog["fox"], "a fox") == ["a photo of a fox"]


def test_the_student_denoises_as_the_pipeline_does(pipe: Any) -> None:
    x = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    options = {"num_inference_steps": 4, "guidance_scale": 3.0, "output_type": "latent"}
    expected = pipe(prompt=["a fox", "a cat"], latents=x, **options).images
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    scheduler.set_timesteps(4)
    said, empty = wording.embed(pipe, ["a fox", "a cat"]), wording.embed(pipe, ["", ""])
    torch.testing.assert_close(denoise(pipe.unet, scheduler, x, said, empty, 3.0, 4), expected)
    assert torch.equal(denoise(pipe.unet, scheduler, x, said, empty, 3.0, 0), x)


def test_the_target_lies_on_the_other_side_of_the_empty_prompt() -> None:
    def frozen(x: torch.Tensor, t: Any, said: torch.Tensor) -> Any:
        return SimpleNamespace(sample=x + said)

    empty, said = torch.tensor([[1.0]]), torch.tensor([[3.0]])
    assert opposite(frozen, torch.tensor([[10.0]]), torch.tensor(0), said, empty, 2.0).item() == 11 - 2 * (13 - 11)


def test_esd_teaches_cross_attention_alone_and_the_same_each_time(pipe: Any) -> None:
    before, settings = state(pipe), EsdSettings(iterations=3, steps=2)
    tuned, again = (esd(pipe, ["a fox"], settings) for _ in range(2))
    assert_same(state(pipe), before)
    assert all(p.requires_grad for p in pipe.unet.parameters())
    cross = {f"unet.{name}" for name, _ in pipe.unet.named_parameters() if "attn2" in name}
    assert set(tuned.change.tensors) == cross
    assert all(not torch.equal(tensor, before[name[5:]]) for name, tensor in tuned.change.tensors.items())
    assert tuned.losses == again.losses
    assert_same(dict(tuned.change.tensors), dict(again.change.tensors))
    other = esd(pipe, ["a fox"], EsdSettings(iterations=3, steps=2, seed=1))
    assert other.losses != tuned.losses


def test_esd_learns_what_it_is_taught(bundled: Any) -> None:
    settings = EsdSettings(iterations=12, steps=1, learning_rate=1e-3)  # from noise alone: no own denoising
    losses = esd(bundled, ["a fox"], settings).losses
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])


# -- pruning without choosing


def masks_like(pipe: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {site.name: rng.random((site.rows, site.width)) < 0.1 * (i + 1) for i, site in enumerate(tiny.sites(pipe))}


def test_random_pruning_takes_as_many_of_each_site(pipe: Any) -> None:
    like = masks_like(pipe)
    found = random_masks(like, 0)
    assert {name: (mask.shape, mask.sum()) for name, mask in found.items()} == {
        name: (mask.shape, mask.sum()) for name, mask in like.items()
    }
    assert all(not np.array_equal(found[name], like[name]) for name in like)
    some = list(like)[1:]
    np.testing.assert_equal(random_masks({name: like[name] for name in some}, 0), {name: found[name] for name in some})
    assert any(not np.array_equal(mask, found[name]) for name, mask in random_masks(like, 1).items())


def test_the_smallest_weights_are_the_smallest(pipe: Any) -> None:
    like = masks_like(pipe)
    for name, mask in smallest_masks(pipe, like).items():
        magnitude = linear(pipe, name).weight.detach().abs().numpy()
        assert mask.sum() == like[name].sum()
        assert magnitude[mask].max() <= magnitude[~mask].min()


def test_pruned_weights_are_zero_and_no_others(pipe: Any) -> None:
    masks = masks_like(pipe)
    change = zeroed(pipe, masks)
    for name, mask in masks.items():
        weight = linear(pipe, name).weight.detach()
        assert torch.equal(change.tensors[f"{name}.weight"], torch.where(torch.from_numpy(mask), 0.0, weight))


# -- on a pipeline, and off it


def changes(pipe: Any, catalog: Catalog) -> dict[str, Change]:
    return {
        "uce": uce.uce(pipe, catalog["fox"], "a fox", ["", "a cat"], uce.Settings()),
        "esd": esd(pipe, ["a fox"], EsdSettings(iterations=1, steps=1)).change,
        "random": zeroed(pipe, random_masks(masks_like(pipe), 0)),
    }


def test_a_change_holds_inside_the_block_and_every_bit_is_back_after_it(pipe: Any, catalog: Catalog) -> None:
    before = state(pipe)
    for change in changes(pipe, catalog).values():
        with change.on(pipe) as inside:
            assert inside is pipe
            expected = before | {name.removeprefix("unet."): tensor for name, tensor in change.tensors.items()}
            assert_same(state(pipe), expected)
            assert any(not torch.equal(tensor, before[name]) for name, tensor in state(pipe).items())
        assert_same(state(pipe), before)
        with pytest.raises(RuntimeError, match="inside"), change.on(pipe):
            raise RuntimeError("inside")
        assert_same(state(pipe), before)
        assert change.bytes > sum(tensor.nbytes for tensor in change.tensors.values())


def test_a_change_of_another_model_changes_nothing(pipe: Any) -> None:
    before, name = state(pipe), "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    for wrong in ({name: torch.zeros(3, 3)}, {"unet.nothing.weight": torch.zeros(3)}):
        first = {"unet.conv_in.bias": torch.zeros_like(pipe.unet.conv_in.bias)}
        with pytest.raises(ValueError, match=next(iter(wrong))), Change({**first, **wrong}).on(pipe):
            pass
        assert_same(state(pipe), before)


# -- counting


def test_a_share_comes_with_what_chance_may_make_of_it() -> None:
    half = judging.accuracy([[i % 2 == 0] for i in range(100)])
    assert (half["share"], half["n"]) == (0.5, 100)
    assert half["low"] == pytest.approx(0.4, abs=0.02)  # 1.96 sqrt(.25 / 100)
    assert half["high"] == pytest.approx(0.6, abs=0.02)
    assert half == judging.accuracy([[i % 2 == 0] for i in range(100)])
    few = judging.accuracy([[i % 2 == 0] for i in range(10)])
    assert few["high"] - few["low"] > half["high"] - half["low"]


def test_what_others_keep_is_counted_prompt_by_prompt() -> None:
    before = [[i % 2 == 0, i % 3 == 0] for i in range(30)]
    same = judging.kept(before, before)
    assert (same["share"], same["low"], same["high"]) == (1, 1, 1)
    assert judging.kept([[True, False]], [[True, True]])["share"] == 0.5
    assert judging.kept([[False]], [[False]])["share"] is None


def row(method: str, concept: str, hits: dict[str, list[list[bool]]], before: Any = None) -> dict[str, Any]:
    return {
        "method": method,
        "concept": concept,
        "settings": "s",
        "accuracy": judging.accuracy(hits["concept"]),
        "kept": judging.kept(hits["others"], (before or hits)["others"]),
        "seconds": 2.0,
        "cpu": 1.5,
        "bytes": 12_000,
        "hits": hits,
    }


def test_the_summary_averages_concepts_and_counts_those_that_fell() -> None:
    all_right = {"concept": [[True]] * 4, "others": [[True, True]] * 4}
    gone = {"concept": [[False]] * 4, "others": [[True, True]] * 4}
    ruined = {"concept": [[False]] * 4, "others": [[True, False]] * 4}
    rows = [row("unedited", c, all_right) for c in ("fox", "cat")]
    rows += [row("new", "fox", gone, all_right), row("new", "cat", ruined, all_right)]
    lines = results.summary(rows, "unedited").splitlines()
    assert lines[2] == "| unedited | 100 (100-100) | 100 (100-100) |  | 2.0 | 1.5 | 12 |"
    assert lines[3] == "| new | 0 (0-0) | 75 (75-75) | 1 of 2 | 2.0 | 1.5 | 12 |"
    assert results.table(rows).splitlines()[4] == "| fox | new | 0 (0-0) | 100 (100-100) | 2.0 | 1.5 | 12 |"


# -- the whole


def test_the_comparison_runs_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small.toml"
    small.write_text(demo.CATALOG.read_text().replace("pairs = 40", "pairs = 2"))
    assert [len(load_catalog(str(small))["fox"].target)] == [2]
    out = tmp_path / "found.json"
    arguments = ["--concepts", "fox", "--out", str(out), "--budget", "small", "--catalog", str(small)]
    rows = peers.main(arguments)
    names = ["unedited", "ConceptPrune", "UCE", "ESD-x", "random pruning", "smallest weights"]
    assert [r["method"] for r in rows] == names
    assert all(len(r["hits"]["concept"]) == len(r["hits"]["others"]) == 2 for r in rows)
    assert [r["bytes"] > 0 for r in rows] == [name != "unedited" for name in names]
    seen = {r["method"]: r["accuracy"]["share"] for r in rows}
    assert (seen["unedited"], seen["UCE"]) == (1, 0)  # what was drawn was drawn with the edit
    printed = capsys.readouterr().out
    assert all(f"| fox | {name} |" in printed for name in names)

    document = json.loads(out.read_text())
    assert document["rows"] == rows
    lost, other = (dict(r) for r in rows if r["method"] in ("UCE", "ESD-x"))
    found = [r for r in rows if r["method"] not in ("UCE", "ESD-x")]
    out.write_text(json.dumps({**document, "rows": [*found, {**other, "settings": "other"}]}))
    assert lost["method"] == "UCE"
    measured, measure = [], peers.measure

    def counted(case: Any, name: str, before: Any) -> Any:
        measured.append(name)
        return measure(case, name, before)

    monkeypatch.setattr(peers, "measure", counted)
    again = peers.main(arguments)
    assert measured == ["UCE", "ESD-x"]
    decided = [[r[key] for key in ("method", "hits", "settings", "bytes")] for r in (*rows, *again)]
    assert decided[: len(rows)] == decided[len(rows) :]
    assert sorted(r["method"] for r in json.loads(out.read_text())["rows"]) == sorted(names)
