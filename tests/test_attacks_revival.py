"""Revival: a planted matrix is recovered, what was kept keeps its bits, and a completion resumes bit for bit."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.attacks.revival import MAGNITUDES, CompletionSpec, CompletionState, complete, filled, restored, zeros_of
from tasks.diffusion.pruned import replaced, weights_fingerprint
from tasks.diffusion.sites import linear
from tests import tiny
from tests.attack_cases import raising, stored

SPEC = CompletionSpec(budget=12, rank=4, tolerance=0)


def planted(rows: int = 40, columns: int = 90, rank: int = 4, share: float = 0.2, seed: int = 0) -> Any:
    """A matrix of low rank and a mask of some of its entries."""
    random = np.random.default_rng(seed)
    matrix = random.standard_normal((rows, rank)) @ random.standard_normal((rank, columns))
    return matrix.astype(np.float32), random.random(matrix.shape) < share


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_planted_matrix_is_recovered(dtype: type) -> None:
    matrix, mask = planted()
    matrix = matrix.astype(dtype)
    pruned = np.where(mask, 0, matrix)
    state = complete(pruned, mask, CompletionSpec(budget=300, rank=4, tolerance=1e-6))
    assert state.converged
    assert state.missing.dtype == dtype
    np.testing.assert_allclose(state.missing, matrix[mask], atol=1e-3)


def test_nothing_is_known_of_the_missing_entries() -> None:
    matrix, mask = planted()
    one = complete(np.where(mask, 0, matrix), mask, SPEC)
    other = complete(np.where(mask, np.nan, matrix), mask, SPEC)
    assert one.missing.tobytes() == other.missing.tobytes()


def test_an_iteration_is_that_of_a_full_svd() -> None:
    """Hard- and soft-impute against plain loops of numpy's SVD, once the basis has settled."""
    matrix, mask = planted(30, 50, 4, 0.3)
    matrix += np.random.default_rng(1).standard_normal(matrix.shape).astype(np.float32) / 10
    for shrinkage, rank, oversample in ((0.0, 4, 0), (0.1, 30, 0), (0.05, 6, 2)):
        spec = CompletionSpec(budget=400, rank=rank, shrinkage=shrinkage, oversample=oversample, tolerance=1e-7)
        state = complete(matrix, mask, spec)
        start = np.where(mask, 0, matrix).astype(np.float64)
        naive, largest = start.copy(), np.linalg.svd(start, compute_uv=False)[0]
        for _ in range(400):
            left, singular, right = np.linalg.svd(naive, full_matrices=False)
            singular = np.maximum(singular - shrinkage * largest, 0)
            singular[rank:] = 0
            naive[mask] = ((left * singular) @ right)[mask]
        assert state.largest == pytest.approx(largest, rel=0.02)
        np.testing.assert_allclose(state.missing, naive[mask], atol=0.01)


def test_the_residual_of_hard_imputing_never_rises() -> None:
    matrix, mask = planted(rank=12)
    residuals: list[float] = []

    def note(state: CompletionState) -> None:
        whole = filled(matrix, mask, state.missing)
        singular = np.linalg.svd(whole.astype(np.float64), compute_uv=False)
        residuals.append(float(np.sqrt((singular[4:] ** 2).sum())))

    complete(matrix, mask, replace(SPEC, budget=30), progress=note)
    assert all(after <= before * (1 + 1e-4) for before, after in zip(residuals, residuals[1:], strict=False))


@pytest.mark.parametrize("parts", [(5, 7), (0, 1, 11), (11, None)])
def test_parts_are_the_whole_bit_for_bit(parts: tuple[int | None, ...]) -> None:
    matrix, mask = planted(rank=8)
    state = None
    for part in parts:
        state = stored(complete(matrix, mask, SPEC, state, steps=part))
    whole = complete(matrix, mask, SPEC)
    assert state is not None
    (arrays, values), (others, other_values) = state.pack(), whole.pack()
    assert values == other_values
    assert all(arrays[name].tobytes() == others[name].tobytes() for name in arrays)
    assert state.step == 12


def test_it_stops_when_it_has_converged() -> None:
    matrix, mask = planted()
    state = complete(matrix, mask, CompletionSpec(budget=300, rank=4))
    assert state.converged
    assert state.step < 300
    assert state.changes[-1] <= 1e-4 < state.changes[-2]
    assert complete(matrix, mask, CompletionSpec(budget=400, rank=4), state) is state


@given(seed=st.integers(0, 1000), magnitude=st.sampled_from(MAGNITUDES), keep=st.sampled_from([0.0, 0.3, 0.6, 1.0]))
def test_what_was_kept_keeps_its_bits(seed: int, magnitude: Any, keep: float) -> None:
    matrix, mask = planted(7, 9, 3, 0.4, seed)
    pruned = np.where(mask, 0, matrix)
    before = pruned.tobytes()
    values = complete(pruned, mask, replace(SPEC, budget=2)).missing
    out = restored(pruned, mask, values, magnitude, keep)
    assert pruned.tobytes() == before
    assert out[~mask].tobytes() == pruned[~mask].tobytes()
    assert (out[mask] != 0).sum() <= round(keep * mask.sum())
    assert np.isfinite(out).all()
    largest = np.broadcast_to(np.abs(pruned).max(1, keepdims=True), mask.shape)[mask]
    if magnitude in ("row-max", "row-quantiles"):
        assert (np.abs(out[mask]) <= largest * (1 + 1e-6)).all()


def test_signs_are_the_completions_and_the_largest_stay() -> None:
    matrix, mask = planted()
    values = complete(matrix, mask, SPEC).missing
    for magnitude in MAGNITUDES:
        out = restored(matrix, mask, values, magnitude, 0.5)[mask]
        assert (np.sign(out)[out != 0] == np.sign(values)[out != 0]).all()
        assert np.abs(values[out != 0]).min() >= np.abs(values[out == 0]).max()


def test_magnitudes_are_the_rows() -> None:
    weight = np.array([[1, -2, 3, 0, 0], [0, 0, 0, 0, 0]], np.float32)
    mask = weight == 0
    values = np.array([0.1, -0.2, 1, 1, 1, 1, 1], np.float32)
    assert restored(weight, mask, values, "row-max", 1).tolist() == [[1, -2, 3, 3, -3], [0] * 5]
    assert restored(weight, mask, values, "completed", 1)[0].tolist() == pytest.approx([1, -2, 3, 0.1, -0.2])
    assert restored(weight, mask, values, "row-quantiles", 1)[0].tolist() == pytest.approx([1, -2, 3, 1.5, -2.5])
    spread = restored(weight, mask, values, "row-spread", 1)[0, 3:]
    assert np.mean(spread**2) == pytest.approx(14 / 3, rel=1e-5)
    assert spread[1] / spread[0] == pytest.approx(-2)


def test_zeros_are_of_either_sign() -> None:
    assert zeros_of(np.array([[0.0, -0.0, 1e-38, 1.0]], np.float32)).tolist() == [[True, True, False, False]]


def test_nothing_missing_is_nothing_to_do() -> None:
    matrix, mask = planted()
    state = complete(matrix, np.zeros_like(mask), SPEC)
    assert (state.step, state.converged, len(state.missing)) == (0, True, 0)


@pytest.mark.parametrize(
    ("weight", "mask", "said"),
    [
        (np.ones((2, 3), np.float32), np.ones((2, 3), bool), "every entry is missing"),
        (np.ones((2, 3), np.float32), np.zeros((3, 2), bool), "give bool"),
        (np.ones((2, 3), np.float32), np.zeros((2, 3), int), "give bool"),
        (np.ones((2, 3), np.uint16), np.zeros((2, 3), bool), "floats are needed"),
        (np.full((2, 3), np.nan, np.float32), np.eye(2, 3, dtype=bool), "not finite"),
    ],
)
def test_what_cannot_be_completed_is_refused(weight: Any, mask: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        complete(weight, mask, SPEC)


def test_a_state_of_something_else_is_refused() -> None:
    matrix, mask = planted()
    state = complete(matrix, mask, SPEC, steps=1)
    with pytest.raises(ValueError, match="another CompletionSpec"):
        complete(matrix, mask, replace(SPEC, rank=5), state)
    with pytest.raises(ValueError, match="missing entries"):
        complete(matrix, ~mask, SPEC, state)
    for wrong in ({"budget": -1}, {"rank": 0}, {"shrinkage": -0.1}, {"tolerance": -1}, {"oversample": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
            CompletionSpec(**wrong)
    for wrong in ({"magnitude": "none"}, {"keep": 1.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            restored(matrix, mask, state.missing, **wrong)  # type: ignore[arg-type]


def test_other_weights_are_there_while_the_block_runs_and_then_the_very_ones() -> None:
    pipe = tiny.build()
    name = tiny.sites(pipe)[0].name
    before, bits = linear(pipe, name).weight, weights_fingerprint(pipe, ["unet"])
    new = np.full(tuple(before.shape), 0.5, np.float32)
    with pytest.raises(KeyError, match="on purpose"):
        raising(replaced(pipe, {name: new}), lambda: (linear(pipe, name).weight == 0.5).all())
    assert linear(pipe, name).weight is before
    assert weights_fingerprint(pipe, ["unet"]) == bits
    with pytest.raises(ValueError, match="shape"), replaced(pipe, {name: new[1:]}):
        pass
    assert weights_fingerprint(pipe, ["unet"]) == bits
