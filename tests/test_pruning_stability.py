import dask
import numpy as np
import pytest
import xarray as xr
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasks.pruning import stability
from tasks.pruning.masks import candidates, mask
from tasks.pruning.norms import role_norms
from tasks.pruning.rankings import Ranking, rank_rows
from tasks.pruning.stability import bootstrap, iou, overall_iou, selection_frequency, step_iou
from tests import oracle, strategies

BRANCHES = {"both": [0, 1], "uncond": [0], "cond": [1]}


def energies(prompts=3, steps=2, width=8, seed=0):
    values = np.random.default_rng(seed).random((prompts, steps, 2, width), np.float32)
    coords = {"branch": ["uncond", "cond"], "prompt": [f"prompt {number}" for number in range(prompts)]}
    return xr.DataArray(values, dims=("prompt", "step", "branch", "neuron"), coords=coords, name="unet.ff")


def weights(rows=3, width=8, seed=1):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def mask_of(target, reference, weight, sparsity, t_hat, vote_share=0.0, branch="both"):
    """The mask that the prompts themselves give."""
    count = candidates(sparsity, weight.shape[1])
    norms = role_norms(target, reference, branch)
    return mask(rank_rows(weight, *norms, count), weight.shape[1], count, t_hat, vote_share)


@st.composite
def cases(draw, values=strategies.energies):
    """Energies of both roles, a weight, and a spec that fits."""
    target, reference = draw(strategies.energy_pairs(values))
    width, steps = target.sizes["neuron"], target.sizes["step"]
    weight = draw(arrays(np.float32, (draw(st.integers(1, 3)), width), elements=strategies.weights))
    return target, reference, weight, draw(strategies.specs(width, steps))


@st.composite
def concept_masks(draw):
    """{concept: {site: mask}} of up to four concepts and three sites; some masks are empty, some full."""
    names = draw(st.lists(st.sampled_from("abcd"), min_size=1, unique=True))
    shapes = draw(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 20)), min_size=1, max_size=3))
    return {
        name: {
            f"site {number}": draw(
                st.one_of(arrays(np.bool_, shape), st.booleans().map(lambda v, s=shape: np.full(s, v)))
            )
            for number, shape in enumerate(shapes)
        }
        for name in names
    }


@given(cases(), st.sampled_from(sorted(BRANCHES)), st.integers(1, 4), st.integers(0, 99))
def test_frequencies_equal_the_oracle(case, branch, samples, seed):
    target, reference, weight, spec = case
    found = selection_frequency(
        *(target, reference, weight, spec.sparsity, spec.t_hat),
        **{"vote_share": float(spec.vote_share), "branch": branch, "samples": samples, "seed": seed},
    )
    draws = list(zip(*bootstrap(target.sizes["prompt"], reference.sizes["prompt"], samples, seed), strict=True))
    expected = oracle.frequency(weight, target.values, reference.values, BRANCHES[branch], draws, *vars(spec).values())
    assert (found.dims, found.dtype) == (("row", "neuron"), np.float32)
    np.testing.assert_array_equal(found, np.array(expected, np.float32))
    assert ((found >= 0) & (found <= 1)).all()


@given(cases())
def test_samples_that_equal_the_original_give_its_mask(case):
    target, reference, weight, spec = case
    every = tuple(np.tile(np.arange(energy.sizes["prompt"]), (3, 1)) for energy in (target, reference))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stability, "bootstrap", lambda *_: every)
        found = selection_frequency(
            target, reference, weight, spec.sparsity, spec.t_hat, vote_share=float(spec.vote_share), samples=3
        )
    np.testing.assert_array_equal(
        found, mask_of(target, reference, weight, spec.sparsity, spec.t_hat, float(spec.vote_share))
    )


@given(cases())
def test_one_prompt_a_role_gives_the_mask_itself(case):
    target, reference, weight, spec = case
    single = target.isel(prompt=[0]), reference.isel(prompt=[0])
    found = selection_frequency(*single, weight, spec.sparsity, spec.t_hat, samples=2)
    np.testing.assert_array_equal(found, mask_of(*single, weight, spec.sparsity, spec.t_hat))


@given(cases(), st.data())
def test_chunks_change_no_bit(case, data):
    target, reference, weight, spec = case
    chunks = {dim: data.draw(st.integers(1, size), dim) for dim, size in target.sizes.items() if dim != "prompt"}
    pair = [energy.chunk({"prompt": data.draw(st.integers(1, 3)), **chunks}) for energy in (target, reference)]
    with dask.config.set(scheduler="synchronous"):
        chunked = selection_frequency(*pair, weight, spec.sparsity, spec.t_hat, samples=3)
    xr.testing.assert_identical(
        chunked, selection_frequency(target, reference, weight, spec.sparsity, spec.t_hat, samples=3)
    )
    assert pair[0].chunks is not None  # the caller's energies are still where they were


def test_blocks_of_rows_and_batches_of_samples_change_no_bit(monkeypatch):
    case = energies(7, 3, 40), energies(5, 3, 40, seed=3), weights(30, 40), 0.2, 3
    expected = selection_frequency(*case, samples=20)
    assert 0 < float(expected.mean()) < 1
    monkeypatch.setattr(stability, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(stability, "SAMPLES_AT_ONCE", 3)
    xr.testing.assert_identical(selection_frequency(*case, samples=20), expected)
    with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None):
        xr.testing.assert_identical(selection_frequency(*case, samples=20), expected)


def test_the_order_of_dims_changes_nothing():
    target, reference, weight = energies(), energies(seed=3), weights()
    turned = (energy.transpose("neuron", "branch", "prompt", "step") for energy in (target, reference))
    expected = selection_frequency(target, reference, weight, 0.5, 2, samples=9)
    xr.testing.assert_identical(selection_frequency(*turned, weight, 0.5, 2, samples=9), expected)


def test_the_seed_decides_and_nothing_else():
    case = energies(6), energies(6, seed=3), weights(), 0.4, 2
    first, again, other = (selection_frequency(*case, samples=11, seed=seed) for seed in (5, 5, 6))
    xr.testing.assert_identical(first, again)
    assert (first.values != other.values).any()


def test_chosen_rows_are_those_of_the_whole():
    target, reference, weight = energies(), energies(seed=3), weights(5)
    whole = selection_frequency(target, reference, weight, 0.5, 2, samples=9)
    some = selection_frequency(target, reference, weight, 0.5, 2, samples=9, rows=[4, 0])
    assert some.row.values.tolist() == [4, 0]
    xr.testing.assert_identical(some, whole.sel(row=[4, 0]))


def test_an_overwhelming_neuron_is_always_selected_and_a_zero_weight_never():
    target, reference, weight = energies(6), energies(6, seed=3), weights()
    target[..., 3] = 1e6
    weight[:, 3] = [1, -1, 0]
    found = selection_frequency(target, reference, weight, 0.25, 2)
    assert found.sel(neuron=3).values.tolist() == [1, 1, 0]


def test_a_neuron_that_one_prompt_alone_drives_is_selected_when_it_is_drawn():
    target, reference, weight = energies(4, 1, 8), energies(4, 1, 8, seed=3), np.ones((1, 8), np.float32)
    target[..., 5] = 0.0
    target[2, ..., 5] = 1e6
    found = selection_frequency(target, reference, weight, "0.125", 1, samples=50)
    drawn = bootstrap(4, 4, 50)[0]
    assert found[0, 5] == np.float32((drawn == 2).any(1).mean())
    assert 0 < found[0, 5] < 1


def test_steps_after_t_hat_are_never_read():
    target, reference, weight = energies(steps=4), energies(steps=4, seed=3), weights()
    expected = selection_frequency(target, reference, weight, 0.5, 2, samples=5)
    target[:, 2:] = np.nan
    np.testing.assert_array_equal(selection_frequency(target, reference, weight, 0.5, 2, samples=5), expected)


def test_the_result_says_what_made_it():
    found = selection_frequency(energies(), energies(), weights(), "25%", 1, vote_share=0.1, branch="cond", samples=4)
    about = {"site": "unet.ff", "sparsity": "25%", "t_hat": 1, "vote_share": 0.1, "branch": "cond"}
    assert found.attrs.items() >= {**about, "samples": 4, "seed": 0}.items()
    assert not found.any()  # equal roles prune nothing


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_bootstraps_draw_as_many_prompts_as_there_are(targets, references, samples, seed):
    ours, theirs = bootstrap(targets, references, samples, seed)
    assert (ours.shape, theirs.shape) == ((samples, targets), (samples, references))
    for drawn, prompts in ((ours, targets), (theirs, references)):
        assert ((drawn >= 0) & (drawn < prompts)).all()
        assert (np.diff(drawn, axis=1) >= 0).all()  # in prompt order, as energies are added
    longer = bootstrap(targets, references, samples + 3, seed)
    np.testing.assert_array_equal(longer[0][:samples], ours)
    np.testing.assert_array_equal(longer[1][:samples], theirs)
    if targets == references:
        np.testing.assert_array_equal(ours, theirs)  # pairs stay together


def test_bootstraps_of_unequal_roles_are_independent_and_even():
    ours, theirs = bootstrap(10, 11, 2000)
    for drawn, prompts in ((ours, 10), (theirs, 11)):
        times = np.bincount(drawn.ravel(), minlength=prompts)
        assert abs(times / 2000 - 1).max() < 0.1  # each prompt once a sample, on average
    assert abs(np.corrcoef(ours.mean(1), theirs.mean(1))[0, 1]) < 0.1


@given(concept_masks())
def test_iou_equals_the_oracle(masks):
    found, overall = iou(masks), overall_iou(masks)
    assert (found.dims, overall.dims) == (("concept", "other", "site"), ("concept", "other"))
    assert set(overall.coords) == {"concept", "other"}
    for concept, sites in masks.items():
        for other, others in masks.items():
            pair = overall.sel(concept=concept, other=other)
            assert pair == oracle.iou(list(sites.values()), list(others.values()))
            for site in sites:
                assert found.sel(concept=concept, other=other, site=site) == oracle.iou([sites[site]], [others[site]])


@given(concept_masks())
def test_iou_is_symmetric_and_1_exactly_where_masks_are_equal(masks):
    for values in (iou(masks), overall_iou(masks).expand_dims(site=["all"], axis=2)):
        assert ((values >= 0) & (values <= 1)).all()
        np.testing.assert_array_equal(values, values.transpose("other", "concept", "site"))
        assert (np.diagonal(values) == 1).all()
    for (concept, other), value in np.ndenumerate(overall_iou(masks)):
        one, two = list(masks.values())[concept], list(masks.values())[other]
        assert (value == 1) == all((one[site] == two[site]).all() for site in one)


@given(concept_masks(), st.randoms(use_true_random=False))
def test_the_order_of_sites_and_concepts_is_only_that_of_the_coords(masks, random):
    mixed = {}
    for concept in random.sample(list(masks), len(masks)):
        mixed[concept] = {
            site: masks[concept][site] for site in random.sample(list(masks[concept]), len(masks[concept]))
        }
    expected = iou(masks)
    xr.testing.assert_identical(iou(mixed).sel({dim: expected[dim] for dim in expected.dims}), expected)


def test_empty_masks_are_alike_and_do_not_raise_the_iou_of_a_model():
    empty, some = np.zeros((2, 3), bool), np.array([[True, False, True], [False, False, False]])
    masks = {"fox": {"a": empty, "b": some}, "owl": {"a": empty, "b": np.roll(some, 1, axis=1)}}
    assert iou(masks).sel(concept="fox", other="owl").values.tolist() == [1, pytest.approx(1 / 3)]
    assert float(overall_iou(masks).sel(concept="fox", other="owl")) == pytest.approx(1 / 3)
    assert iou({"fox": {"a": empty}, "owl": {"a": some}}).values[0, 1] == 0


@given(strategies.sites(), st.data())
def test_iou_by_step_equals_the_oracle(site, data):
    count = data.draw(st.integers(1, site.width), "count")
    other = data.draw(arrays(np.float32, site.target.shape, elements=strategies.energies), "other")
    norms = {"fox": site.target, "owl": other, "none": site.reference}
    rankings = {name: rank_rows(site.weight, norm, site.reference, count) for name, norm in norms.items()}
    found = step_iou(rankings, site.width, count)
    assert found.dims == ("concept", "other", "step")
    for step in range(site.steps):
        alone = {
            name: np.array(oracle.votes(site.weight, norm[step:], site.reference[step:], count, 1)) > 0
            for name, norm in norms.items()
        }
        for concept, skilled in alone.items():
            for second, others in alone.items():
                value = found.sel(concept=concept, other=second, step=step)
                assert value == oracle.iou([skilled], [others])


class TestRefused:
    case = energies(), energies(seed=3), weights()

    @pytest.mark.parametrize("t_hat", [0, 3])
    def test_steps_that_were_not_captured(self, t_hat):
        with pytest.raises(ValueError, match=f"t_hat is {t_hat}; it must be in 1 to 2, the steps that were captured"):
            selection_frequency(*self.case, 0.5, t_hat)

    @pytest.mark.parametrize("rows", [[], [3], [-1], [0, 0], [0.5], [True], [[0]]])
    def test_rows_that_are_not_there(self, rows):
        with pytest.raises(ValueError, match="expected distinct numbers from 0 to 2, the weight's rows"):
            selection_frequency(*self.case, 0.5, 1, rows=rows)

    def test_what_no_mask_can_be_made_of(self):
        with pytest.raises(ValueError, match=r"sparsity 0\.1 gives no candidate in unet\.ff \(width 8\)"):
            selection_frequency(*self.case, 0.1, 1)
        with pytest.raises(ValueError, match="vote_share is 1; it must be 0 or more and below 1"):
            selection_frequency(*self.case, 0.5, 1, vote_share=1)
        with pytest.raises(ValueError, match=r"expected \[step, 7\] for both"):
            selection_frequency(*self.case[:2], self.case[2][:, 1:], 0.5, 1)
        broken = self.case[2].copy()
        broken[2, 4] = np.nan
        with pytest.raises(ValueError, match="weight holds nan"):
            selection_frequency(*self.case[:2], broken, 0.5, 1)

    def test_energies_that_do_not_fit_or_are_missing(self):
        target, reference, weight = self.case
        with pytest.raises(ValueError, match="target energies have 3 steps, reference energies 2"):
            selection_frequency(energies(steps=3), reference, weight, 0.5, 1)
        with pytest.raises(ValueError, match="target energies have 9 neurons, reference energies 8"):
            selection_frequency(energies(width=9), reference, weight, 0.5, 1)
        for dim in ("prompt", "step"):
            with pytest.raises(ValueError, match="expected prompt, step, branch, neuron"):
                selection_frequency(target.isel({dim: 0}), reference.isel({dim: 0}), weight, 0.5, 1)
        with pytest.raises(ValueError, match="branch 'mean' is unknown"):
            selection_frequency(*self.case, 0.5, 1, branch="mean")
        broken = target.copy(deep=True)
        broken[1, 0, 0, 2] = np.nan
        with pytest.raises(ValueError, match=r"unet\.ff sums to nan at step 0, neuron 2"):
            selection_frequency(broken, reference, weight, 0.5, 1, samples=1)  # even when no sample draws it

    def test_bootstraps_of_nothing(self):
        with pytest.raises(ValueError, match="there are 2 target and 0 reference prompts"):
            bootstrap(2, 0, 1)
        with pytest.raises(ValueError, match="samples is 0; it must be 1 or more"):
            selection_frequency(*self.case, 0.5, 1, samples=0)
        with pytest.raises(ValueError, match="seed is -1; it must be 0 or more"):
            selection_frequency(*self.case, 0.5, 1, seed=-1)

    @pytest.mark.parametrize("compare", [iou, overall_iou])
    def test_masks_that_cannot_be_compared(self, compare):
        ones = np.ones((2, 3), bool)
        for nothing in ({}, {"fox": {}}):
            with pytest.raises(ValueError, match="there is no mask to compare"):
                compare(nothing)
        with pytest.raises(ValueError, match="owl and fox have masks of different sites, such as b"):
            compare({"fox": {"a": ones}, "owl": {"a": ones, "b": ones}})
        with pytest.raises(ValueError, match=r"the mask of owl has the shape \(3, 2\), that of fox \(2, 3\)"):
            compare({"fox": {"a": ones}, "owl": {"a": ones.T}})
        with pytest.raises(ValueError, match="the mask of fox is uint8"):
            compare({"fox": {"a": ones.astype(np.uint8)}})

    def test_rankings_that_cannot_be_compared(self):
        def ranking(steps, rows):
            return Ranking(np.zeros((steps, rows, 1), np.uint16), np.ones((steps, rows, 1), bool))

        with pytest.raises(ValueError, match="there is no ranking to compare"):
            step_iou({}, 8, 1)
        message = "the ranking of owl has 2 steps and 3 rows, that of fox 2 and 2"
        with pytest.raises(ValueError, match=message):
            step_iou({"fox": ranking(2, 2), "owl": ranking(2, 3)}, 8, 1)
        with pytest.raises(ValueError, match="count is 2 candidates a row and the ranking holds 1 to 1"):
            step_iou({"fox": ranking(2, 2)}, 8, 2)
