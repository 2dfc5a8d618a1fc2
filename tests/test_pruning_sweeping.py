"""Counts of a grid against the masks that its points would give."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.pruning.masks import mask
from tasks.pruning.rankings import Ranking, rank_rows
from tasks.pruning.sweeping import count_pruned
from tests import oracle, strategies


@given(strategies.sites(), st.data())
def test_counts_are_the_sums_of_masks_at_every_point(site, data):
    numbers = data.draw(st.lists(st.integers(1, site.width), min_size=1, max_size=4), "counts")
    t_hats = data.draw(st.lists(st.integers(1, site.steps), min_size=1, max_size=4), "t_hats")
    shares = data.draw(st.lists(strategies.vote_shares.map(float), min_size=1, max_size=4), "vote shares")
    depth = data.draw(st.integers(max(numbers), site.width), "depth")
    ranking = rank_rows(site.weight, site.target, site.reference, depth)
    found = count_pruned(ranking, site.width, numbers, t_hats, shares)
    assert found.dims == ("count", "t_hat", "vote_share")
    assert found.dtype == np.int64
    expected = [
        [[mask(ranking, site.width, count, t_hat, share).sum() for share in shares] for t_hat in t_hats]
        for count in numbers
    ]
    assert found.values.tolist() == expected


@given(strategies.sites(), st.data())
def test_counts_are_what_plain_loops_find(site, data):
    spec = data.draw(strategies.specs(site.width, site.steps))
    count = oracle.candidates(spec.sparsity, site.width)
    ranking = rank_rows(site.weight, site.target, site.reference, count)
    found = count_pruned(ranking, site.width, [count], [spec.t_hat], [float(spec.vote_share)])
    assert found.item() == sum(map(sum, oracle.mask(site.weight, site.target, site.reference, *vars(spec).values())))


RANKING = Ranking(np.array([[[0, 1]], [[1, 2]]], np.uint16), np.ones((2, 1, 2), bool))


@pytest.mark.parametrize(
    ("width", "counts", "t_hats", "shares", "says"),
    [
        (3, [], [1], [0.0], "counts are .*; rank deeper"),
        (3, [3], [1], [0.0], "the ranking holds 1 to 2; rank deeper"),
        (3, [0, 1], [1], [0.0], "counts are"),
        (3, [1], [3], [0.0], "each must be in 1 to 2, the captured steps"),
        (3, [1], [], [0.0], "t_hats are"),
        (3, [1], [1], [1.0], "vote_shares are .*below 1"),
        (3, [1], [1], [], "vote_shares are"),
        (2, [2], [1], [0.0], "a neuron that a site with 2 does not have; rank the site again"),
    ],
)
def test_points_outside_the_ranking_are_refused(width, counts, t_hats, shares, says):
    with pytest.raises(ValueError, match=says):
        count_pruned(RANKING, width, counts, t_hats, shares)
