import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from tasks.pruning.norms import column_norms, energy_by_step, role_norms
from tests import oracle, strategies

CHOSEN = {"both": [0, 1], "uncond": [0], "cond": [1]}


def energies(prompts=2, steps=2, width=3, value=1.0):
    return xr.DataArray(
        np.full((prompts, steps, 2, width), value, np.float32),
        dims=("prompt", "step", "branch", "neuron"),
        coords={"branch": ["uncond", "cond"]},
        name="unet.mid_block.ff.net.2",
    )


@given(strategies.energy_arrays(), st.sampled_from(sorted(CHOSEN)), st.booleans())
def test_norms_equal_the_oracle(energy, branch, mean):
    norms = column_norms(energy, branch, mean)
    assert norms.dtype == np.float32
    np.testing.assert_array_equal(norms, np.array(oracle.norms(energy.values, CHOSEN[branch], mean), np.float32))


@given(strategies.energy_arrays(), st.sampled_from(sorted(CHOSEN)), st.data())
def test_chunking_changes_no_bit(energy, branch, data):
    chunks = {dim: data.draw(st.integers(1, size), dim) for dim, size in energy.sizes.items()}
    with dask.config.set(scheduler="synchronous"):
        chunked = column_norms(energy.chunk(chunks), branch)
    np.testing.assert_array_equal(chunked, column_norms(energy, branch))


def test_threads_change_no_bit():
    values = np.random.default_rng(0).random((40, 5, 2, 64), np.float32)
    energy = energies(40, 5, 64).copy(data=values)
    np.testing.assert_array_equal(energy_by_step(energy.chunk(prompt=1)), energy_by_step(energy))


@given(strategies.energy_arrays(), st.randoms(use_true_random=False))
def test_the_order_of_dims_changes_nothing(energy, random):
    dims = list(energy.dims)
    random.shuffle(dims)
    np.testing.assert_array_equal(column_norms(energy.transpose(*dims)), column_norms(energy))


@given(strategies.energy_arrays(values=strategies.whole_energies), st.randoms(use_true_random=False))
def test_the_order_of_prompts_changes_nothing(energy, random):
    order = list(range(energy.sizes["prompt"]))
    random.shuffle(order)
    np.testing.assert_array_equal(column_norms(energy.isel(prompt=order)), column_norms(energy))


@given(strategies.energy_pairs(values=strategies.whole_energies))
def test_energies_of_a_union_are_sums(pair):
    union = xr.concat(pair, "prompt")
    np.testing.assert_array_equal(energy_by_step(union), energy_by_step(pair[0]) + energy_by_step(pair[1]))


@given(strategies.energy_arrays(values=strategies.whole_energies))
def test_both_branches_are_the_sum_of_each(energy):
    each = energy_by_step(energy, "uncond") + energy_by_step(energy, "cond")
    np.testing.assert_array_equal(energy_by_step(energy, "both"), each)


@given(strategies.energy_pairs())
def test_fault_7_unequal_prompt_sets_are_averaged_not_truncated(pair):
    target, reference = pair
    unequal = target.sizes["prompt"] != reference.sizes["prompt"]
    for norms, energy in zip(role_norms(target, reference), pair, strict=True):
        np.testing.assert_array_equal(norms, np.array(oracle.norms(energy.values, [0, 1], unequal), np.float32))


def test_fault_7_every_prompt_of_the_longer_set_counts():
    target, reference = energies(3), energies(2)
    target[2] = 10.0  # a zip() of both sets would drop it
    norms, others = role_norms(target, reference)
    np.testing.assert_array_equal(norms, np.float32(np.sqrt((1 + 1 + 10) * 2 / 3)))
    np.testing.assert_array_equal(others, np.float32(np.sqrt(2)))


def test_float64_sums_do_not_lose_small_energies():
    energy = energies(prompts=65, steps=1, width=1, value=1.0)
    energy[0] = 2.0**25  # in float32 the 128 ones that follow would vanish
    assert energy_by_step(energy)[0, 0] == 2.0**26 + 128


def test_a_store_without_guidance_has_one_branch():
    energy = energies().sel(branch=["cond"])
    np.testing.assert_array_equal(column_norms(energy, "both"), column_norms(energy, "cond"))
    with pytest.raises(ValueError, match=r"branch 'uncond' is not among the captured ones \(cond\)"):
        column_norms(energy, "uncond")


@pytest.mark.parametrize("value", [np.nan, np.inf, -30.0])
@pytest.mark.parametrize("chunks", [None, {"prompt": 1}])
def test_energies_that_are_no_energies_are_refused(value, chunks):
    energy = energies()
    energy[1, 1, 0, 2] = value
    with pytest.raises(ValueError, match=r"unet\.mid_block\.ff\.net\.2 sums to \S+ at step 1, neuron 2"):
        column_norms(energy if chunks is None else energy.chunk(chunks))


def test_nan_of_a_branch_that_is_not_asked_for_does_no_harm():
    energy = energies()
    energy.loc[{"branch": "uncond"}] = np.nan
    np.testing.assert_array_equal(column_norms(energy, "cond"), np.float32(np.sqrt(2)))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="expected prompt, step, branch, neuron"):
        column_norms(energies().isel(prompt=0))
    with pytest.raises(ValueError, match="hold no prompt"):
        column_norms(energies(prompts=0))
    with pytest.raises(ValueError, match="branch 'mean' is unknown"):
        column_norms(energies(), "mean")
    with pytest.raises(ValueError, match="captured ones"):
        column_norms(energies().drop_vars("branch"), "cond")
    with pytest.raises(ValueError, match="target energies have 3 steps, reference energies 2"):
        role_norms(energies(steps=3), energies(steps=2))
    with pytest.raises(ValueError, match="target energies have 4 neurons, reference energies 3"):
        role_norms(energies(width=4), energies(width=3))


def test_oracle_energies_of_each_branch_sum_to_the_tokens():
    tokens = [[3.0, 4.0, 0.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]
    assert oracle.energy(tokens) == pytest.approx([9 / 25 + 1, 16 / 25, 0.0])
