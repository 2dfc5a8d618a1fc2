"""Intervals and distances: against plain loops and known answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from tasks.metrics.distances import cmmd, fid, kid
from tasks.metrics.intervals import of_pairs, of_sets, summarise
from tasks.metrics.metric import Judgement


def judged(values: list[list[float]], groups: tuple[str, ...] = ("object", "style")) -> list[Judgement]:
    return [
        Judgement(i, group, value) for i, row in enumerate(values) for group, value in zip(groups, row, strict=True)
    ]


def test_means_are_of_judgements_and_intervals_of_resampled_images() -> None:
    rng = np.random.default_rng(1)
    before, after = ((rng.random((40, 2)) < share).astype(float).tolist() for share in (0.9, 0.3))
    found = summarise(judged(before), judged(after))
    assert (found["n"], found["images"]) == (80, 40)
    assert found["before"]["value"] == pytest.approx(np.mean(before))
    assert found["change"]["value"] == pytest.approx(np.mean(after) - np.mean(before))
    assert found["groups"]["style"]["after"]["value"] == pytest.approx(np.mean([row[1] for row in after]))
    means = [np.mean(np.array(after)[rng.integers(0, 40, 40)]) for _ in range(4000)]
    low, high = np.quantile(means, [0.025, 0.975])
    assert found["after"]["low"] == pytest.approx(low, abs=0.02)
    assert found["after"]["high"] == pytest.approx(high, abs=0.02)
    assert summarise(judged(before), judged(after)) == found  # the same again
    twins = [[row[0], row[0]] for row in after]  # judgements that hang together do not count twice
    wide = summarise(judged(twins), judged(twins))["after"]
    assert wide["high"] - wide["low"] > 1.2 * (found["after"]["high"] - found["after"]["low"])


def test_a_share_without_exceptions_still_has_an_interval() -> None:
    found = summarise(judged([[1.0]] * 20, ("",)), judged([[0.0]] * 20, ("",)))
    assert "groups" not in found
    assert found["before"] == {"value": 1.0, "low": pytest.approx(0.8389, abs=1e-4), "high": 1.0}  # Wilson, 20 of 20
    assert found["after"] == {"value": 0.0, "low": 0.0, "high": pytest.approx(0.1611, abs=1e-4)}
    assert found["change"] == {"value": -1.0, "low": -1.0, "high": pytest.approx(-0.8389, abs=1e-4)}
    same = summarise(judged([[0.0]] * 20, ("",)), judged([[0.0]] * 20, ("",)))["change"]
    assert same == {"value": 0.0, "low": pytest.approx(-0.1611, abs=1e-4), "high": pytest.approx(0.1611, abs=1e-4)}


def test_judgements_of_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match="are not about the same images"):
        summarise(judged([[1.0]], ("a",)), judged([[1.0]], ("b",)))
    with pytest.raises(ValueError, match="are not about the same images"):
        summarise([], [])


def test_fid_is_the_closed_form_of_two_gaussians() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(60, 5)), 2 * rng.normal(size=(50, 5)) + 1
    covariances = [np.cov(x, rowvar=False) for x in (one, other)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    wanted = ((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert fid(one, other) == pytest.approx(wanted, rel=1e-6)
    assert fid(one, one) == pytest.approx(0, abs=1e-6)


def test_kid_and_cmmd_are_their_sums() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(12, 4)), rng.normal(size=(12, 4)) + 0.5

    def cubic(x: np.ndarray, y: np.ndarray) -> float:
        return (float(x @ y) / 4 + 1) ** 3

    pairs = [(i, j) for i in range(12) for j in range(12)]
    inside = sum(cubic(s[i], s[j]) for s in (one, other) for i, j in pairs if i != j) / (12 * 11)
    across = sum(cubic(one[i], other[j]) for i, j in pairs) / 144
    assert kid(one, other) == pytest.approx(inside - 2 * across, rel=1e-4)

    units = [s / np.linalg.norm(s, axis=1, keepdims=True) for s in (one, other)]

    def gauss(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.exp(-((x - y) ** 2).sum() / 200))

    sums = [
        np.mean([gauss(a[i], b[j]) for i, j in pairs])
        for a, b in ((0, 0), (1, 1), (0, 1))
        for a, b in [(units[a], units[b])]
    ]
    assert cmmd(one, other) == pytest.approx(1000 * (sums[0] + sums[1] - 2 * sums[2]), rel=1e-6)
    assert cmmd(one, one) == pytest.approx(0, abs=1e-9)


def test_distances_have_the_spread_of_resampled_sets() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(80, 3)), rng.normal(size=(80, 3)) + 2
    found = of_sets(one, other, cmmd)
    assert found["value"] == cmmd(one, other)
    assert found["low"] < found["value"] < found["high"]
    assert of_sets(one, other, cmmd) == found
    values = rng.random(50)
    pairs = of_pairs(values)
    assert pairs["value"] == pytest.approx(values.mean())
    assert pairs["n"] == 50
    assert pairs["low"] < values.mean() < pairs["high"]
