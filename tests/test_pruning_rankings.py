import dask
import dask.array as da
import numpy as np
import pytest
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st

from tasks.pruning.rankings import Ranking, rank_rows, rank_site
from tests import oracle, strategies


def assert_same(found, expected):
    np.testing.assert_array_equal(found.neuron, expected.neuron)
    np.testing.assert_array_equal(found.kept, expected.kept)


def sorted_ranking(weight, target, reference, depth):
    """The ranking by numpy's stable sort, for sites too large for the oracle."""
    scores = np.abs(weight)[None] * target[:, None]
    neuron = np.argsort(-scores, axis=2, kind="stable")[:, :, :depth]
    kept = np.take_along_axis(scores > np.abs(weight)[None] * reference[:, None], neuron, 2)
    return Ranking(neuron.astype(np.uint16), kept)


def random_site(rows, width, steps, seed=0):
    random = np.random.default_rng(seed)
    weight = random.standard_normal((rows, width)).astype(np.float32)
    drift = np.exp(random.standard_normal((steps, width)) * 0.03).cumprod(0)
    target = (np.exp(random.standard_normal(width)) * drift).astype(np.float32)
    return weight, target, (target * random.uniform(0.9, 1.1, target.shape)).astype(np.float32)


@given(strategies.sites(), st.data())
def test_rankings_equal_the_oracle(site, data):
    depth = data.draw(st.integers(1, site.width), "depth")
    ranking = rank_rows(site.weight, site.target, site.reference, depth)
    assert (ranking.steps, ranking.depth) == (site.steps, depth)
    assert (ranking.neuron.dtype, ranking.kept.dtype) == (np.uint16, np.bool_)
    for step in range(site.steps):
        for row in range(site.rows):
            weights = site.weight[row]
            expected = oracle.ranking(weights, site.target[step], depth)
            assert ranking.neuron[step, row].tolist() == expected
            assert ranking.kept[step, row].tolist() == [
                oracle.score(weights[n], site.target[step][n]) > oracle.score(weights[n], site.reference[step][n])
                for n in expected
            ]


@given(strategies.sites(), st.data())
def test_blocks_of_rows_change_nothing(site, data):
    depth, block = data.draw(st.integers(1, site.width), "depth"), data.draw(st.integers(1, site.rows + 1), "block")
    with dask.config.set(scheduler="synchronous"):
        ranking = rank_site(site.weight, site.target, site.reference, depth, row_block=block)
    assert_same(ranking, rank_rows(site.weight, site.target, site.reference, depth))


@given(strategies.sites())
def test_a_shallow_ranking_is_the_start_of_a_deep_one(site):
    deep = rank_rows(site.weight, site.target, site.reference, site.width)
    for depth in range(1, site.width + 1):
        shallow = rank_rows(site.weight, site.target, site.reference, depth)
        assert_same(shallow, Ranking(deep.neuron[:, :, :depth], deep.kept[:, :, :depth]))


@pytest.mark.parametrize("width", [1, 255, 1000, 1280, 4097])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.5, 1.0])
def test_rankings_of_real_widths(width, share):
    weight, target, reference = random_site(3, width, 7)
    depth = max(1, int(share * width))
    assert_same(rank_rows(weight, target, reference, depth), sorted_ranking(weight, target, reference, depth))


@pytest.mark.parametrize("depth", [1, 100, 700])
def test_norms_that_jump_between_steps(depth):
    weight, target, reference = random_site(3, 700, 9)
    target *= np.float32(10) ** np.array([0, 8, -8, 8, 0, -20, 20, 1, 0], np.float32)[:, None]
    target[4] = 0  # then no score reaches a floor
    assert_same(rank_rows(weight, target, reference, depth), sorted_ranking(weight, target, reference, depth))


@pytest.mark.parametrize("depth", [1, 7, 8, 333])
def test_coarse_values_tie_at_every_boundary(depth):
    random = np.random.default_rng(1)
    weight = random.integers(-3, 4, (4, 333)).astype(np.float32)
    target, reference = random.integers(0, 4, (2, 5, 333)).astype(np.float32)
    assert_same(rank_rows(weight, target, reference, depth), sorted_ranking(weight, target, reference, depth))


@pytest.mark.parametrize(
    ("weight", "norm"),
    [(0.0, 1.0), (-0.0, 1.0), (1.0, 0.0), (1.0, -0.0), (0.0, 0.0), (2.0, 3.0), (1e-30, 1e-30), (1e30, 1e30)],
)
def test_all_tied_rows_rank_by_neuron_and_keep_none(weight, norm):
    ranking = rank_rows(*(np.full((2, 70), value, np.float32) for value in (weight, norm, norm)), 9)
    assert ranking.neuron.tolist() == [[list(range(9))] * 2] * 2
    assert not ranking.kept.any()


def test_negative_zero_norms_rank_as_zeros():
    norm = np.array([[-0.0, 0.0, 1.0]], np.float32)
    assert rank_rows(np.ones((1, 3), np.float32), norm, norm, 3).neuron.tolist() == [[[2, 0, 1]]]


def test_kept_is_strict_and_a_zero_weight_is_never_kept():
    weight = np.array([[1, 1, 1, 0]], np.float32)
    target = np.array([[4, 3, 2, 9]], np.float32)
    reference = np.array([[4, 2, 3, 0]], np.float32)
    ranking = rank_rows(weight, target, reference, 4)
    assert ranking.neuron.tolist() == [[[0, 1, 2, 3]]]
    assert ranking.kept.tolist() == [[[False, True, False, False]]]


def test_the_widest_site_reaches_its_last_neuron():
    weight = np.zeros((1, 65535), np.float32)
    weight[0, -1] = -1
    norm = np.ones((2, 65535), np.float32)
    assert rank_rows(weight, norm, norm, 2).neuron.tolist() == [[[65534, 0]]] * 2


def test_fault_3_any_number_of_steps_is_ranked():
    weight, target, reference = random_site(2, 40, 51)  # PNDM calls the denoiser 51 times for 50 steps
    assert rank_rows(weight, target, reference, 3).neuron.shape == (51, 2, 3)


def test_ties_do_not_depend_on_the_layout_of_memory():
    weight, target, reference = random_site(5, 33, 4)
    weight, target = np.round(weight), np.round(target)
    expected = rank_rows(weight, target, reference, 12)
    frozen = target.copy()
    frozen.setflags(write=False)
    assert_same(rank_rows(np.asfortranarray(weight), frozen, reference[:, ::-1][:, ::-1], 12), expected)
    assert_same(rank_rows(weight.astype(np.float16), target, reference, 12), expected)


def test_the_inputs_are_left_alone():
    site = random_site(2, 20, 3)
    before = [values.copy() for values in site]
    rank_rows(*site, 5)
    for values, copy in zip(site, before, strict=True):
        np.testing.assert_array_equal(values, copy)


def test_blocks_run_on_threads_and_read_a_dask_weight():
    weight, target, reference = random_site(50, 64, 5)
    expected = rank_rows(weight, target, reference, 8)
    assert_same(rank_site(weight, target, reference, 8, row_block=7), expected)
    assert_same(rank_site(da.from_array(weight, chunks=(11, 30)), target, reference, 8, row_block=7), expected)


def test_blocks_run_on_the_default_client():
    weight, target, reference = random_site(20, 64, 5)
    with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None):
        ranking = rank_site(weight, target, reference, 8, row_block=6)
    assert_same(ranking, rank_rows(weight, target, reference, 8))


@pytest.mark.parametrize("rank", [rank_rows, rank_site])
class TestRefused:
    ones = np.ones((2, 4), np.float32)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite(self, rank, value):
        for broken in range(3):
            values = [self.ones.copy() for _ in range(3)]
            values[broken][1, 2] = value
            name = ("weight", "target norm", "reference norm")[broken]
            with pytest.raises(ValueError, match=f"{name} holds {value}"):
                rank(*values, 1)

    def test_negative_norms(self, rank):
        with pytest.raises(ValueError, match=r"target norm holds -1\.0"):
            rank(self.ones, -self.ones, self.ones, 1)

    @pytest.mark.parametrize("depth", [-1, 0, 5])
    def test_depths_outside_the_row(self, rank, depth):
        with pytest.raises(ValueError, match=f"depth is {depth}; it must be in 1 to 4"):
            rank(self.ones, self.ones, self.ones, depth)

    def test_norms_of_another_site(self, rank):
        with pytest.raises(ValueError, match=r"expected \[step, 4\]"):
            rank(self.ones, np.ones((2, 5), np.float32), np.ones((2, 5), np.float32), 1)
        with pytest.raises(ValueError, match=r"\(3, 4\) \(reference\)"):
            rank(self.ones, self.ones, np.ones((3, 4), np.float32), 1)
        with pytest.raises(ValueError, match=r"expected \[step, 4\]"):
            rank(self.ones, np.ones((0, 4), np.float32), np.ones((0, 4), np.float32), 1)

    def test_weights_without_rows(self, rank):
        for shape in ((4,), (0, 4)):
            with pytest.raises(ValueError, match="at least one row"):
                rank(np.ones(shape, np.float32), self.ones, self.ones, 1)

    def test_sites_too_wide_for_the_index(self, rank):
        wide = np.ones((1, 65536), np.float32)
        with pytest.raises(ValueError, match="at most 65535"):
            rank(wide, wide, wide, 1)

    def test_types_that_would_be_rounded(self, rank):
        with pytest.raises(ValueError, match="weight is float64; expected float32"):
            rank(self.ones.astype(np.float64), self.ones, self.ones, 1)


def test_blocks_of_no_rows_are_refused():
    with pytest.raises(ValueError, match="row_block is 0"):
        rank_site(TestRefused.ones, TestRefused.ones, TestRefused.ones, 1, row_block=0)


def test_rankings_that_do_not_fit_together_are_refused():
    neuron, kept = np.zeros((1, 2, 3), np.uint16), np.zeros((1, 2, 3), bool)
    for wrong in ((neuron, kept[:, :, :2]), (neuron[0], kept[0])):
        with pytest.raises(ValueError, match=r"both must be \[step, out, rank\]"):
            Ranking(*wrong)
    for wrong in ((neuron.astype(np.int64), kept), (neuron, kept.astype(np.uint8))):
        with pytest.raises(ValueError, match="expected uint16 and bool"):
            Ranking(*wrong)
