"""Observing a concept: its price first, only what is missing, and values that are the model's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from flows.cli import app
from flows.observe import observe, observe_concept
from flows.observe_plan import ObserveRequest, make_observation
from flows.steps import Steps
from storage.activations import ActivationStore
from storage.opening import open_activations, open_tier
from storage.tiers import TierStore
from tasks.concepts.prompts import Prompt
from tasks.diffusion import pipelines
from tests import tiny
from tests.erase_cases import Case, files
from tests.test_diffusion_recorder import raw_inputs

MID = "unet.mid_block.attentions.0.transformer_blocks.0.ff.net.2"


@pytest.fixture(scope="module")
def store(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the fox captured."""
    store = tmp_path_factory.mktemp("captured")
    assert cli("erase", "fox", *case.options(store), "--no-prefect", "--no-evaluate").exit_code == 0
    return store


def cli(*words: object) -> Result:
    return CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": "200", "NO_COLOR": "1"})


def options(case: Case, store: Path) -> list[str]:
    """The command line's options: an observation has no judge."""
    paths = {"store": store, "model": case.model, "catalog": case.catalog}
    return ["--no-prefect", *(word for name, path in paths.items() for word in (f"--{name}", str(path)))]


def request(case: Case, store: Path, **given: Any) -> ObserveRequest:
    paths = {"store": str(store), "model": str(case.model), "catalog": str(case.catalog)}
    return ObserveRequest(**{"concept": "fox", "tier": "raw", "sites": [MID], "device": "cpu", **paths, **given})


def opened(store: Path, case: Case, **given: Any) -> Any:
    plan = make_observation(request(case, store, **given))
    return open_tier(plan.store("target").url)


def test_raw_tokens_are_what_the_model_computes(case: Case, store: Path) -> None:
    result = cli("observe", "fox", "--tier", "raw", "--sites", "unet.mid_block*", "--at-steps", "0,2",
                 *options(case, store), "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert result.stderr.startswith("observe: raw, 6 prompts x 2 steps, 1 sites, 49.2 kB, about ")
    assert (found["observed"], found["steps"], found["sites"]) == (6, [0, 2], [MID])
    assert set(found["stores"]) == {"target", "reference"}
    tree = open_tier(found["stores"]["target"])
    assert tree["complete"].values.tolist() == [1, 1, 1]
    x = tree[MID]["activation"]
    assert (tree[MID].attrs["grid"], x.sizes["token"]) == ([4, 4], 16)  # latents of 8 x 8, halved once
    spec = make_observation(request(case, store)).capture
    prompts = [
        Prompt(str(text), int(seed)) for text, seed in zip(tree["text"].values, tree["seed"].values, strict=True)
    ]
    pipe = pipelines.load(spec.model)
    with raw_inputs(pipe, [site for site in tiny.sites(pipe) if site.name == MID]) as seen:
        pipelines.generate(pipe, prompts, spec.spec, window=3)
    expected = np.stack(seen[MID])[[0, 2]].reshape(2, 2, 3, 16, -1).transpose(2, 0, 1, 3, 4)
    np.testing.assert_array_equal(x, expected.astype("f2"))
    energies = open_activations(ActivationStore(store, spec.profile, Path(found["stores"]["target"]).parent.name).url)
    square = x.astype("f8") ** 2  # the tier and the energies are of the same prompts and steps
    np.testing.assert_allclose(
        (square / square.sum("neuron")).sum("token"), energies[MID]["energy"].sel(step=[0, 2]), rtol=0.02, atol=1e-3
    )


def test_pooled_needs_no_capture_and_a_rerun_does_nothing(case: Case, tmp_path: Path) -> None:
    words = ("observe", "photo", "--tier", "pooled", "--sites", "*", "--role", "target", *options(case, tmp_path))
    result = cli(*words)
    assert result.exit_code == 0, result.output
    assert "3 prompts were observed now" in result.stdout
    assert "open it" in result.stdout
    assert "reference" not in result.stdout
    before = files(tmp_path)
    again = cli(*words)
    assert "0 prompts were observed now" in again.stdout
    assert again.stderr.startswith(
        "observe: pooled, 0 prompts x 3 steps, 4 sites, 0.0 kB (3 of 3 prompts are there alre"
    )
    assert files(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiers"]
    tree = open_tier(
        make_observation(request(case, tmp_path, concept="photo", tier="pooled", sites=["*"])).store("target").url
    )
    for site in tree.children.values():
        assert (abs(site["mean"]) <= site["absmax"]).all()
        assert ((site["positive"] >= 0) & (site["positive"] <= 1)).all()


def test_an_interrupted_observation_goes_on(case: Case, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(case, store, at_steps="1", batch=1)
    write, done = TierStore.write, []

    def mortal(self: TierStore, slot: int, values: Any) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(slot)
        write(self, slot, values)

    with monkeypatch.context() as dying:
        dying.setattr(TierStore, "write", mortal)
        with pytest.raises(KeyboardInterrupt):
            observe(make_observation(asked), Steps())
    assert make_observation(asked).missing() == 4
    assert "4 prompts x 1 steps" in make_observation(asked).cost()
    assert "(2 of 6 prompts are there already)" in make_observation(asked).cost()
    assert observe(make_observation(asked), Steps())["observed"] == 4
    assert make_observation(asked).missing() == 0


def test_a_tier_leaves_energies_and_edits_alone(case: Case, store: Path) -> None:
    before = {name: own for name, own in files(store).items() if not name.startswith("tiers/")}
    observe(make_observation(request(case, store, at_steps="0", role="reference")), Steps())
    assert {name: own for name, own in files(store).items() if not name.startswith("tiers/")} == before


def test_memory_bounds_the_batch(case: Case, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_observation(request(case, store))
    assert plan.batch == 10
    for limit, batch in ((plan.prompt_bytes * 3 + 1, 3), (1, 1)):
        monkeypatch.setattr("flows.observe_plan.IN_MEMORY", limit)
        assert plan.batch == batch


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--tier", "raw", "--sites", "*", "--max-bytes", "10KB"],
         r"raw activations of 6 prompts x 3 steps, 4 sites, would take \d+\.\d kB, and the limit is 10\.0 kB; choose "
         r"fewer --sites \(unet\.\S+ alone takes \d+%\), --at-steps or one --role, or raise --max-bytes"),
        (["--tier", "mean", "--sites", "*"], "tier is 'mean': Input should be 'pooled' or 'raw'; see --help"),
        (["--tier", "raw", "--sites", "unet.mid*,unet.nose*"], r"no site is named unet\.nose\*; there are unet\.down"),
        (["--tier", "raw", "--sites", ","], "sites is \\[\\]: List should have at least 1 item"),
        (["--tier", "raw", "--sites", "*", "--at-steps", "2-1"], "steps '2-1' is no choice; give numbers and ranges"),
        (["--tier", "raw", "--sites", "*", "--at-steps", "2-3"], "steps 2-3 asks for 3, but there are 3, 0 to 2"),
        (["--tier", "raw", "--sites", "*", "--role", "all"], "role is 'all': Input should be 'target', 'reference' or"),
        (["--tier", "raw", "--sites", "*", "--max-bytes", "much"], "max_bytes is 'much': could not parse value"),
        (["--tier", "raw", "--sites", "*", "--guidance", "5"], "no price yet: nothing is captured with these settings"),
    ],
    ids=["price", "tier", "site", "no sites", "steps", "late steps", "role", "bytes", "uncaptured"],
)  # fmt: skip
def test_what_is_wrong_is_refused_before_the_model_loads(
    case: Case, store: Path, words: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines, "load", lambda model: pytest.fail("it loaded the model"))
    before = files(store)
    result = cli("observe", "fox", *words, *options(case, store))
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert re.search(says, result.stderr), result.stderr
    assert files(store) == before


def test_the_limit_is_a_setting(case: Case, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCEPTPRUNE_MAX_BYTES", "1KB")
    assert request(case, store).max_bytes == 1000
    with pytest.raises(ValueError, match=r"the limit is 1\.0 kB"):
        observe(make_observation(request(case, store)), Steps())
    observe(make_observation(request(case, store, max_bytes="1GB", at_steps="0")), Steps())


@pytest.mark.usefixtures("prefect_server")
def test_the_flow_runs_under_prefect(case: Case, store: Path) -> None:
    asked = request(case, store, tier="pooled", role="reference")
    outcome = observe_concept(asked)
    assert outcome["observed"] == 3
    assert open_tier(outcome["stores"]["reference"])["complete"].values.tolist() == [1, 1, 1]
    assert observe_concept(asked)["observed"] == 0
