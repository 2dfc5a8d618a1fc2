"""Hiding positions: what is written, what it leaves, and what an attacker's best threshold still finds."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.attacks.hiding import best_threshold, found_by_zeros, hidden, positions_below, score_positions


def case(seed: int = 0, rows: int = 30, columns: int = 60, density: float = 0.2) -> Any:
    random = np.random.default_rng(seed)
    weight = random.standard_normal((rows, columns)).astype(np.float32)
    return weight, random.random(weight.shape) < density


@given(
    seed=st.integers(0, 1000), share=st.sampled_from([0.0, 0.05, 0.3, 1.0]), sign=st.sampled_from(["random", "flipped"])
)
def test_kept_entries_keep_their_bits_and_hidden_ones_are_of_their_row(seed: int, share: float, sign: Any) -> None:
    weight, mask = case(seed, 6, 20, 0.4)
    before = weight.tobytes()
    out = hidden(weight, mask, share, sign, seed=seed)
    assert weight.tobytes() == before
    assert out[~mask].tobytes() == weight[~mask].tobytes()
    for row in range(len(weight)):
        kept = np.sort(np.abs(weight[row, ~mask[row]]))
        pool = kept[: max(1, round(share * len(kept)))] if share else np.zeros(1, np.float32)
        assert np.isin(np.abs(out[row, mask[row]]), pool).all()
    if sign == "flipped" and share:
        assert (np.sign(out[mask]) == -np.sign(weight[mask])).all()


def test_zeros_give_everything_away_and_anything_else_nothing() -> None:
    weight, mask = case()
    zeros, some = hidden(weight, mask, 0), hidden(weight, mask, 0.05)
    assert found_by_zeros([zeros], [mask]).as_json() == {"precision": 1, "recall": 1, "f1": 1, "threshold": None}
    assert found_by_zeros([some], [mask]).recall == 0


def test_the_more_is_written_the_less_a_threshold_finds() -> None:
    weight, mask = case(columns=400)
    found = [best_threshold([hidden(weight, mask, share)], [mask]).f1 for share in (0, 0.05, 0.3, 1)]
    assert found[0] == 1
    assert all(more > less + 0.05 for more, less in zip(found, found[1:], strict=False))
    blind = 2 * mask.mean() / (1 + mask.mean())  # everything predicted
    assert found[-1] == pytest.approx(blind, abs=0.03)


@given(seed=st.integers(0, 1000))
def test_the_best_threshold_is_the_best_of_all(seed: int) -> None:
    """Against trying every threshold, over two weights; and the positions are those that it says."""
    cases = [case(seed, 4, 7, 0.4), case(seed + 1, 3, 5, 0.3)]
    masks = [mask for _, mask in cases]
    weights = [np.round(hidden(weight, mask, 0.5), 1) for weight, mask in cases]
    best = best_threshold(weights, masks)
    if not any(mask.any() for mask in masks):
        assert best.f1 == 0
        return
    assert best.threshold is not None
    assert score_positions(positions_below(weights, best.threshold), masks).f1 == best.f1
    every = [score_positions(positions_below(weights, x / 10), masks).f1 for x in range(60)]
    assert best.f1 >= max(every)


def test_rows_are_judged_by_their_own_size() -> None:
    weight, mask = case()
    scaled = weight * np.logspace(-3, 3, len(weight))[:, None].astype(np.float32)
    one, other = (best_threshold([hidden(w, mask, 0.05)], [mask]) for w in (weight, scaled))
    assert one.f1 == pytest.approx(other.f1)


def test_positions_are_scored_over_all_weights() -> None:
    predicted = [np.array([[True, True, False]]), np.array([[True, False]])]
    masks = [np.array([[True, False, True]]), np.array([[True, True]])]
    found = score_positions(predicted, masks)
    assert (found.precision, found.recall, found.f1) == (2 / 3, 2 / 4, 4 / 7)
    nothing = score_positions([np.zeros((1, 2), bool)], [np.zeros((1, 2), bool)])
    assert (nothing.precision, nothing.recall, nothing.f1) == (0, 0, 0)


def test_a_row_with_nothing_kept_gets_zeros() -> None:
    weight, mask = np.ones((2, 3), np.float32), np.array([[True] * 3, [True, False, False]])
    assert hidden(weight, mask, 1, "flipped").tolist() == [[0, 0, 0], [-1, 1, 1]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"share": 1.5}, "share is 1.5"),
        ({"sign": "same"}, "'same' is unknown"),
        ({"mask": np.zeros((2, 2), bool)}, "another"),
    ],
)
def test_what_cannot_be_hidden_is_refused(change: dict[str, Any], said: str) -> None:
    weight, mask = case()
    with pytest.raises(ValueError, match=said):
        hidden(**{"weight": weight, "mask": mask, "share": 0.1, **change})
