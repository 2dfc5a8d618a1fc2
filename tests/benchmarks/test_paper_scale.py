"""A small site both ways: the pipeline's mask and the reference's are the same. `make bench` shows the times.

The paper's sizes take minutes and a process a part: `python -m tests.benchmarks.paper_scale`, see docs/benchmarks.md.
"""

import json

import numpy as np
import pytest
import torch

from storage.models import ModelStore
from tasks.pruning.masks import candidates, mask
from tasks.pruning.norms import role_norms
from tasks.pruning.rankings import rank_rows
from tests.benchmarks import paper_scale
from tests.benchmarks.paper_sizes import Scale, Size, activations, write_inputs
from tests.benchmarks.reference_way import step_matrix, union

SITE = Size(width=640, rows=24, tokens=64, sites=1)
SCALE = Scale((SITE,), prompts=3, steps=20)
COUNT = candidates(SCALE.sparsity, SITE.width)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Weight, target norms and reference norms, by way of the stores."""
    root = str(tmp_path_factory.mktemp("store"))
    write_inputs(root, SCALE)
    (name,) = SCALE.names()
    energies = (activations(root, role).energy(name) for role in ("target", "reference"))
    return ModelStore(root, "model").weight(name), *role_norms(*energies)


def by_reference(weight, target, reference, t_hat):
    weight, target, reference = (torch.from_numpy(array) for array in (weight, target, reference))
    matrices = [step_matrix(weight, *norms, COUNT) for norms in zip(target, reference, strict=True)]
    return union(matrices, t_hat).numpy()


def by_ranking(weight, target, reference, t_hat):
    ranking = rank_rows(weight, target, reference, candidates(SCALE.deepest, SITE.width))
    return mask(ranking, SITE.width, COUNT, t_hat)


@pytest.mark.parametrize("way", [by_ranking, by_reference])
def test_a_mask_of_a_small_site(benchmark, site, way):
    way(*site, SCALE.t_hat)  # compiled outside the clock
    found = benchmark(way, *site, SCALE.t_hat)
    assert 0 < found.sum() < found.size
    np.testing.assert_array_equal(found, by_reference(*site, SCALE.t_hat))


@pytest.mark.parametrize("t_hat", [1, SCALE.steps])
def test_both_ways_agree_for_any_window(site, t_hat):
    np.testing.assert_array_equal(by_ranking(*site, t_hat), by_reference(*site, t_hat))


@pytest.mark.slow
def test_the_whole_run_on_small_sites(tmp_path, capsys):
    summary = paper_scale.main(["--scale", "small", "--rounds", "1", "--json", str(tmp_path / "found.json")])
    assert summary["identical"]
    assert all(line["peak_bytes"] > 0 for line in summary["lines"].values())
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["lines"] == summary["lines"]
    assert "less CPU" in capsys.readouterr().out
