"""Edits of every family, of all site kinds at once, through the flow: what plain loops prune, in the right columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import xarray as xr

from flows.config import CatalogRequest, Request
from flows.erase_concept import erase
from flows.plan import make_plan
from flows.rethreshold import cut_all, plan_cuts
from flows.steps import Steps
from storage.activations import ActivationStore
from storage.edits import read_edit_at
from tasks.applying import with_edit
from tasks.diffusion.headers import read_sites
from tasks.diffusion.sites import linear
from tasks.diffusion.spec import NeuronSite
from tests import oracle
from tests.test_families import KINDS, NAMES

pytestmark = pytest.mark.families

CATALOG = """
format = 1
[capture]
steps = 3
guidance = 4.0
height = 64
width = 64
kinds = ["ffn", "ffn_in", "attn_k", "attn_v", "text"]
[prune]
sparsity = 0.2
t_hat = 2
vote_share = 0.5
[words.object]
cat = "a cat"
dog = "a dog"
fox = "a fox"
rose = "a rose"
[words.style]
photo = "photo"
of = "of"
apple = "apple"
[recipes.object]
reference = "{object} in style of {style}"
target = "{concept} in style of {style}"
pairs = 3
[[concepts]]
slug = "fox"
kind = "object"
"""


def oracle_mask(
    site: NeuronSite, weight: np.ndarray, energies: dict[str, np.ndarray], steps: int, prune: dict[str, Any]
) -> np.ndarray:
    """The mask over all of a Linear's inputs, by plain loops; what is the same at every step is written out."""
    shown = {role: np.repeat(e[:, None], steps, 1) if site.once else e for role, e in energies.items()}
    branches = list(range(shown["target"].shape[2]))
    norms = {role: oracle.norms(e, branches) for role, e in shown.items()}
    found = oracle.mask(
        weight[:, site.start :].tolist(), norms["target"], norms["reference"], prune["sparsity"], prune["t_hat"],
        str(prune["vote_share"]),
    )  # fmt: skip
    return np.pad(np.array(found), ((0, 0), (site.start, 0)))


@pytest.mark.parametrize("family", NAMES)
def test_one_edit_of_all_kinds_is_what_plain_loops_prune(
    family_folders: dict[str, Path], family: str, tmp_path: Path
) -> None:
    model, catalog = family_folders[family], tmp_path / "zoo.toml"
    catalog.write_text(CATALOG, "utf-8")
    request = Request(
        concept="fox", store=str(tmp_path / "store"), model=str(model), catalog=str(catalog), device="cpu",
        evaluate=False, padding=False,
    )  # fmt: skip
    edit = read_edit_at(erase(make_plan(request), Steps()).url)
    masks, prune, sets = edit.masks(), edit.manifest["prune"], edit.manifest["prompt_sets"]
    sites = read_sites(model, KINDS)
    assert set(masks) == {site.name for site in sites}
    trees = {role: xr.open_datatree(ActivationStore(request.store, edit.manifest["profile"], digest).url,
                                    engine="zarr", consolidated=False, chunks={})
             for role, digest in sets.items()}  # fmt: skip
    base = diffusers.DiffusionPipeline.from_pretrained(model, local_files_only=True)
    for site in sites:
        weight = linear(base, site.name).weight.detach().numpy()
        energies = {role: tree[site.source or site.name]["energy"].values for role, tree in trees.items()}
        steps = trees["target"].sizes["step"]
        np.testing.assert_array_equal(
            masks[site.name], oracle_mask(site, weight, energies, steps, prune), err_msg=site.name
        )
        assert not masks[site.name][:, : site.start].any()
    for name, weight in edit.deltas().items():
        site = name.removesuffix(".weight")
        np.testing.assert_array_equal(
            weight, np.where(masks[site], np.float32(0), linear(base, site).weight.detach().numpy())
        )

    part = cut_all(plan_cuts(CatalogRequest.of(request.model_copy(update={
        "kinds": "ffn,attn_v", "exclude": "*.1.*", "catalog": "demo", "model": "demo",
    }))), Steps())  # fmt: skip
    assert not part.failed
    fewer = read_edit_at(part.rows[0].url).masks()
    assert set(fewer) == {site.name for site in sites if site.kind in ("ffn", "attn_v") and ".1." not in site.name}
    assert all(np.array_equal(mask, masks[name]) for name, mask in fewer.items())

    with with_edit(base, edit.path):
        patched = {name: linear(base, name).weight.detach().clone() for name in masks}
    for name, mask in masks.items():
        assert not patched[name].numpy()[mask].any()
