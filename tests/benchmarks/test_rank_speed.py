"""The ranking kernel against numpy's stable sort of the same scores: equal results; `make bench` shows the times."""

import numpy as np
import pytest

from tasks.pruning.masks import mask
from tasks.pruning.rankings import Ranking, rank_rows

ROWS, WIDTH, STEPS, DEPTH = 32, 1280, 10, 64  # a tenth of a Stable Diffusion 1.5 site's rows; 5 % of a row


@pytest.fixture(scope="module")
def site():
    random = np.random.default_rng(0)
    weight = random.standard_normal((ROWS, WIDTH)).astype(np.float32)
    drift = np.exp(random.standard_normal((STEPS, WIDTH)) * 0.03).cumprod(0)
    target = (np.exp(random.standard_normal(WIDTH) * 0.5) * drift).astype(np.float32)
    return weight, target, (target * random.uniform(0.9, 1.1, target.shape)).astype(np.float32)


def rank_by_sorting(weight, target, reference, depth):
    magnitudes = np.abs(weight)
    neuron = np.empty((STEPS, ROWS, depth), np.uint16)
    kept = np.empty((STEPS, ROWS, depth), bool)
    for step in range(STEPS):
        scores = magnitudes * target[step]
        order = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
        neuron[step] = order
        kept[step] = np.take_along_axis(scores > magnitudes * reference[step], order, 1)
    return Ranking(neuron, kept)


@pytest.fixture(scope="module")
def expected(site):
    return rank_by_sorting(*site, DEPTH)


@pytest.mark.parametrize("rank", [rank_rows, rank_by_sorting])
def test_rank_a_site(benchmark, site, expected, rank):
    rank(*site, DEPTH)  # compiled outside the clock
    ranking = benchmark(rank, *site, DEPTH)
    np.testing.assert_array_equal(ranking.neuron, expected.neuron)
    np.testing.assert_array_equal(ranking.kept, expected.kept)


def test_mask_of_a_ranking(benchmark, expected):
    mask(expected, WIDTH, DEPTH, STEPS)  # compiled outside the clock
    found = benchmark(mask, expected, WIDTH, DEPTH, STEPS)
    votes = np.zeros((ROWS, WIDTH), bool)
    steps, rows, ranks = np.nonzero(expected.kept)
    votes[rows, expected.neuron[steps, rows, ranks]] = True
    np.testing.assert_array_equal(found, votes)
