"""Memorised captions: the empty prompt is captured once, and scaled to as many captions as there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr

from flows.erase_concept import erase
from flows.plan import make_plan
from flows.steps import Steps
from tests import erase_cases, oracle
from tests.erase_cases import Case

CAPTIONS = """
[[concepts]]
slug = "captions"
kind = "captions"
seeds = [0, 0, 0, 0]
reference = [""]
target = ["the rose of the fox", "a photo of the cat", "an apple in the rose", "a dog of the dog"]

[[concepts]]
slug = "two"
kind = "captions"
seeds = [0, 0]
reference = [""]
target = ["the cat", "the dog"]
"""


@pytest.fixture(scope="module")
def found(case: Case, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Both concepts erased, into one store."""
    folder = tmp_path_factory.mktemp("captions")
    catalog = folder / "captions.toml"
    catalog.write_text(case.catalog.read_text("utf-8") + CAPTIONS, "utf-8")
    return {
        slug: erase(make_plan(case.request(folder / "store", slug, catalog=str(catalog), evaluate=False)), Steps())
        for slug in ("captions", "two")
    } | {"store": folder / "store"}


def energies(found: dict[str, Any], slug: str, role: str) -> xr.DataTree:
    manifest = found[slug].manifest
    path = found["store"] / "activations" / manifest["profile"] / f"{manifest['prompt_sets'][role]}.zarr"
    return xr.open_datatree(str(path), engine="zarr", consolidated=False, chunks={})


def test_the_empty_prompt_is_captured_once_for_all(found: dict[str, Any]) -> None:
    assert energies(found, "captions", "reference").coords["text"].values.tolist() == [""]
    sets = [found[slug].manifest["prompt_sets"] for slug in ("captions", "two")]
    assert sets[0]["reference"] == sets[1]["reference"]
    assert len(list((found["store"] / "activations").glob("*/*.zarr"))) == 3


@pytest.mark.parametrize(("slug", "captions"), [("captions", 4), ("two", 2)])
def test_the_mask_is_that_of_one_empty_prompt_a_caption(
    case: Case, found: dict[str, Any], slug: str, captions: int
) -> None:
    """The paper's way runs the empty prompt, from the same noise, as often as there are captions."""
    masks, prune = erase_cases.masks(found[slug].url), found[slug].manifest["prune"]
    reference, target = (energies(found, slug, role) for role in ("reference", "target"))
    for name, weight in erase_cases.weights(case.model).items():
        site = name.removesuffix(".weight")
        order = ("prompt", "step", "branch", "neuron")
        repeated = np.repeat(reference[site]["energy"].transpose(*order).values, captions, axis=0)
        norms = [oracle.norms(x, [0, 1]) for x in (target[site]["energy"].transpose(*order).values, repeated)]
        wanted = np.array(oracle.mask(weight, *norms, prune["sparsity"], prune["t_hat"]))
        assert wanted.any()
        assert np.array_equal(masks[site], wanted)
