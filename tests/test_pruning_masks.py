from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.pruning.masks import candidates, check_sparsity, mask, smallest_sparsity
from tasks.pruning.norms import role_norms
from tasks.pruning.rankings import Ranking, rank_rows
from tests import oracle, strategies


def rank_all(site):
    return rank_rows(site.weight, site.target, site.reference, site.width)


def ranking_of(votes, steps):
    """A ranking of one row, one rank a neuron, that keeps neuron j in its first votes[j] steps."""
    neuron = np.tile(np.arange(len(votes), dtype=np.uint16), (steps, 1, 1))
    return Ranking(neuron, np.arange(steps)[:, None, None] < np.array(votes))


@given(strategies.sites(), st.data())
def test_masks_equal_the_oracle(site, data):
    spec = data.draw(strategies.specs(site.width, site.steps), "spec")
    count = candidates(spec.sparsity, site.width)
    found = mask(rank_all(site), site.width, count, spec.t_hat, float(spec.vote_share))
    expected = oracle.mask(site.weight, site.target, site.reference, spec.sparsity, spec.t_hat, spec.vote_share)
    assert found.dtype == np.bool_
    assert found.tolist() == expected


@given(strategies.energy_pairs(), st.data())
def test_masks_from_energies_equal_the_oracle(pair, data):
    width, steps = pair[0].sizes["neuron"], pair[0].sizes["step"]
    weight = data.draw(strategies.arrays(np.float32, (3, width), elements=strategies.weights), "weight")
    spec = data.draw(strategies.specs(width, steps), "spec")
    count = candidates(spec.sparsity, width)
    found = mask(rank_rows(weight, *role_norms(*pair), count), width, count, spec.t_hat, float(spec.vote_share))
    unequal = pair[0].sizes["prompt"] != pair[1].sizes["prompt"]
    norms = [oracle.norms(energy.values, [0, 1], unequal) for energy in pair]
    assert found.tolist() == oracle.mask(weight, *norms, spec.sparsity, spec.t_hat, spec.vote_share)


@given(strategies.sites(), st.data())
def test_each_row_has_exactly_k_candidates(site, data):
    spec = data.draw(strategies.specs(site.width, site.steps), "spec")
    count = candidates(spec.sparsity, site.width)
    ranking = rank_all(site)
    everything = Ranking(ranking.neuron, np.ones_like(ranking.kept))  # then each candidate gets its vote
    assert (mask(everything, site.width, count, 1).sum(1) == count).all()


@given(strategies.sites(), st.data())
def test_masks_grow_with_k_and_t_hat_and_shrink_with_vote_share(site, data):
    ranking = rank_all(site)
    counts = sorted(data.draw(st.lists(st.integers(1, site.width), min_size=2, max_size=2), "counts"))
    t_hats = sorted(data.draw(st.lists(st.integers(1, site.steps), min_size=2, max_size=2), "t_hats"))
    shares = sorted(data.draw(st.lists(strategies.vote_shares.map(float), min_size=2, max_size=2), "shares"))
    few, many = (mask(ranking, site.width, count, site.steps, shares[0]) for count in counts)
    assert (few <= many).all()
    early, late = (mask(ranking, site.width, site.width, t_hat) for t_hat in t_hats)  # a union: vote_share 0
    assert (early <= late).all()
    loose, strict = (mask(ranking, site.width, site.width, site.steps, share) for share in shares)
    assert (strict <= loose).all()


@given(strategies.sites())
def test_a_zero_weight_is_never_pruned(site):
    pruned = mask(rank_all(site), site.width, site.width, site.steps)
    assert not pruned[site.weight == 0].any()


@given(strategies.sites())
def test_equal_roles_prune_nothing(site):
    ranking = rank_rows(site.weight, site.target, site.target, site.width)
    assert not mask(ranking, site.width, site.width, site.steps).any()


@pytest.mark.parametrize(
    ("vote_share", "steps", "needed"),
    [(0.0, 1, 1), (0.0, 10, 1), (0.3, 10, 4), (0.29, 100, 30), (0.5, 9, 5), (0.5, 10, 6), (0.7, 10, 8), (0.99, 10, 10)],
)
def test_votes_must_exceed_the_decimal_share(vote_share, steps, needed):
    votes = list(range(steps + 1))
    found = mask(ranking_of(votes, steps), len(votes), len(votes), steps, vote_share)
    assert found[0].tolist() == [number >= needed for number in votes]


def test_votes_of_more_than_255_steps_do_not_wrap():
    assert mask(ranking_of([256, 299, 0], 300), 3, 3, 300, 0.5).tolist() == [[True, True, False]]


def test_read_only_rankings_from_a_store_are_counted():
    ranking = ranking_of([1, 0], 1)
    for values in (ranking.neuron, ranking.kept):
        values.setflags(write=False)
    assert mask(ranking, 2, 2, 1).tolist() == [[True, False]]


def test_patched_weights_are_zero_where_the_mask_is_true():
    weight = np.array([[2.0, -3.0]])
    found = mask(ranking_of([1, 0], 1), 2, 2, 1)
    assert (weight * ~found).tolist() == oracle.patched(weight.tolist(), found.tolist()) == [[0.0, -3.0]]


def test_masks_refuse_what_the_ranking_cannot_answer():
    ranking = ranking_of([1, 2], 3)
    for count in (0, 3):
        with pytest.raises(ValueError, match=f"count is {count} candidates a row and the ranking holds 1 to 2"):
            mask(ranking, 2, count, 1)
    for t_hat in (0, 4):
        with pytest.raises(ValueError, match=f"t_hat is {t_hat}; it must be in 1 to 3"):
            mask(ranking, 2, 1, t_hat)
    for vote_share in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="it must be 0 or more and below 1"):
            mask(ranking, 2, 1, 1, vote_share)


def test_a_ranking_of_a_wider_site_cannot_write_outside_the_mask():
    with pytest.raises(ValueError, match="names neuron 1 of a site with 1"):
        mask(ranking_of([1, 2], 3), 1, 2, 1)


@pytest.mark.parametrize("sparsity", [0.29, "0.29", Decimal("0.29"), "29%", np.float64(0.29)])
def test_sparsity_counts_by_its_decimal_value(sparsity):
    assert candidates(sparsity, 100) == 29  # 0.29 * 100 is 28.999999999999996 in binary


@given(st.integers(1, 65535), st.integers(1, 10_000))
def test_candidates_are_the_floor(width, tenthousandths):
    text = f"{tenthousandths / 10_000:.4f}"
    assert candidates(text, width) == candidates(float(text), width) == tenthousandths * width // 10_000
    assert candidates(text, width) == oracle.candidates(text, width)


def test_long_decimals_are_not_rounded_up():
    assert candidates("0." + "9" * 60, 1000) == 999
    assert candidates("1", 1000) == 1000


@pytest.mark.parametrize("sparsity", [0, 0.0, -0.1, 1.01, "100.1%", "nan", "inf", float("nan"), "a tenth"])
def test_sparsity_outside_0_to_1_is_refused(sparsity):
    with pytest.raises(ValueError, match="sparsity"):
        candidates(sparsity, 100)
    with pytest.raises(ValueError, match="sparsity"):
        check_sparsity(sparsity, {"unet.ff": 100})


@given(st.integers(1, 65535))
def test_the_smallest_sparsity_gives_one_candidate(width):
    smallest = smallest_sparsity(width)
    assert candidates(smallest, width) == 1
    assert smallest <= Decimal(1) / width * Decimal("1.00001")


def test_fault_9_a_sparsity_that_floors_to_zero_is_refused():
    widths = {"unet.down.ff.net.2": 1280, "unet.mid.ff.net.2": 48, "unet.up.ff.net.2": 640}
    with pytest.raises(
        ValueError, match=r"0\.01 gives no candidate in unet\.mid\.ff\.net\.2 \(width 48\).* is 0\.0208334"
    ):
        check_sparsity(0.01, widths)
    check_sparsity("0.0208334", widths)
    check_sparsity(1, widths)


def test_fault_9_the_smallest_sparsity_is_never_written_with_an_exponent():
    with pytest.raises(ValueError, match=r"is 0\.000015259[0-9]+$"):
        check_sparsity("0.0000001", {"unet.ff": 65535})
