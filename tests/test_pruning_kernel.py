"""The kernel on norms that its guesses are wrong about: jumps, outliers, ties, zeros, across windows of steps."""

import numpy as np
import pytest

from tasks.pruning import kernel

ROWS, WIDTH, STEPS = 6, 300, 2 * kernel.WINDOW + 3  # two windows and a rest


def steady(random):
    return np.exp(random.standard_normal(WIDTH)) * np.exp(random.standard_normal((STEPS, WIDTH)) * 0.02).cumprod(0)


def unrelated(random):
    return np.exp(random.standard_normal((STEPS, WIDTH)) * 3)


def falling(random):
    return steady(random) * 0.5 ** np.arange(STEPS)[:, None]


def rising(random):
    return steady(random) * 1e3 ** (np.arange(STEPS)[:, None] - STEPS // 2)  # overflows in the last steps


def tied(random):
    return random.integers(0, 3, (STEPS, WIDTH)).astype(float)


def mostly_zero(random):
    return steady(random) * (random.random((STEPS, WIDTH)) < 0.05)


def zero_at_times(random):
    return steady(random) * (random.random((STEPS, 1)) < 0.5)


def outliers(random):
    norm = 1 + random.random((STEPS, WIDTH)) * 1e-5  # all but one key falls into one bucket
    norm[:, 7] = 1e30
    return norm


def tiny(random):
    return random.random((STEPS, WIDTH)) * 1e-42  # below the smallest normal float32


@pytest.mark.parametrize("depth", [1, 15, 150, WIDTH])
@pytest.mark.parametrize(
    "norms",
    [steady, unrelated, falling, rising, tied, mostly_zero, zero_at_times, outliers, tiny],
    ids=lambda f: f.__name__,
)
def test_the_ranking_is_that_of_a_stable_sort(norms, depth):
    random = np.random.default_rng(depth)
    weight = np.abs(random.standard_normal((ROWS, WIDTH))).astype(np.float32)
    weight[0] = 1  # ties wherever norms tie
    weight[1, ::2] = 0
    with np.errstate(over="ignore"):
        target = np.minimum(norms(random), np.finfo(np.float32).max).astype(np.float32)
        reference = np.minimum(target * random.uniform(0.9, 1.1, target.shape), 3e38).astype(np.float32)
        scores = weight * target[:, None]
        higher = scores > weight * reference[:, None]
    expected = np.argsort(-scores, axis=2, kind="stable")[:, :, :depth]
    neuron, kept = kernel.rank(weight, target, reference, depth)
    np.testing.assert_array_equal(neuron, expected)
    np.testing.assert_array_equal(kept, np.take_along_axis(higher, expected, 2))
