"""The ranking kernel: the best neurons of each row at each step, as machine code.

Scores are 0 or more, and the bits of such floats, read as integers, sort as the floats do. Finding the best of a row
takes two moves: gather the few neurons that can be among them, then sort those.

Norms change little between steps, so most neurons are ruled out for a window of steps at once: where `depth` neurons
reach a floor even under their lowest norms of the window, one that stays below it under its highest is never among the
best. Of the others, a step takes those near the score that sufficed a step before. Both floors are guesses, and both
are checked: norms that jump cost time, never exactness.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

WIDEST = 65535  # neurons: an index fits 16 bits
WINDOW = 8  # steps that share what is ruled out; 4 and 16 are slower where norms drift by 3 to 10 % a step
WINDOW_SLACK = 0.88  # a window's floor, as a share of the last score of the step before
STEP_SLACK = 0.96  # a step's floor, as a share of the same
BUCKET_BITS = 20  # low bits of a float32 that _sure_floor ignores: 8 buckets for each doubling of the score
CLUMP = 24  # mean square of keys a bucket, for each key, above which comparing is quicker than inserting

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
UInt64 = npt.NDArray[np.uint64]
Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """`function` as machine code that runs without the GIL; compiled at its first call and kept on disk."""
    return cast(Function, numba.njit(nogil=True, cache=True)(function))


@compiled
def rank(weight: Float32, target: Float32, reference: Float32, depth: int) -> tuple[Any, Any]:
    """Neurons and kept [step, out, rank] of magnitudes [out, neuron] and norms [step, neuron], which are not checked.

    Order is total: the higher target score first, and of equal scores the lower neuron.
    """
    rows, width = weight.shape
    steps = target.shape[0]
    neuron = np.empty((steps, rows, depth), np.uint16)
    kept = np.empty((steps, rows, depth), np.bool_)
    lowest, highest = _extremes(target)
    near = np.empty(width + 1, np.int32)  # one more than can be found, as in keys: both are written ahead
    scores = np.empty(width, np.float32)
    keys = np.empty(width + 1, np.uint64)
    ordered = np.empty(width, np.uint64)
    buckets = np.empty(_bucket_count(depth), np.int32)
    for row in range(rows):
        last = np.float32(np.inf)
        for step in range(steps):
            if step % WINDOW == 0:
                window = step // WINDOW
                floor = _window_floor(weight[row], lowest[window], last * np.float32(WINDOW_SLACK), depth)
                _score(weight[row], highest[window], scores)
                within = _gather(scores, floor, near)
            _score_near(weight[row], target[step], near[:within], scores)
            found = _make_keys(scores, near[:within], last * np.float32(STEP_SLACK), keys)
            if found < depth:
                found = _make_keys(scores, near[:within], np.float32(0), keys)
            _sort(keys[:found], buckets, ordered[:found])
            last = _write_ranks(ordered, weight[row], target[step], reference[step], neuron[step, row], kept[step, row])
    return neuron, kept


@compiled
def _extremes(norm: Float32) -> tuple[Any, Any]:
    """The lowest and the highest norm of each neuron in each window of steps, [window, neuron]."""
    windows = (norm.shape[0] + WINDOW - 1) // WINDOW
    lowest = np.full((windows, norm.shape[1]), np.inf, np.float32)
    highest = np.zeros((windows, norm.shape[1]), np.float32)
    for step in range(norm.shape[0]):
        window = step // WINDOW
        for neuron in range(norm.shape[1]):
            lowest[window, neuron] = min(lowest[window, neuron], norm[step, neuron])
            highest[window, neuron] = max(highest[window, neuron], norm[step, neuron])
    return lowest, highest


@compiled
def _window_floor(weight: Float32, lowest: Float32, guess: Any, depth: int) -> Any:
    """A floor that at least `depth` scores reach at every step of a window: the guess, if it is one."""
    reached = 0
    for neuron in range(weight.size):
        reached += int(weight[neuron] * lowest[neuron] >= guess)
    if reached >= depth:
        return guess
    return _sure_floor(weight * lowest, depth)


@compiled
def _sure_floor(scores: Float32, depth: int) -> Any:
    """The lower edge of the bucket that holds the score of rank `depth`: at least `depth` scores reach it."""
    bits = scores.view(np.uint32)
    sizes = np.zeros(1 << (32 - BUCKET_BITS), np.int32)
    for neuron in range(bits.size):
        sizes[bits[neuron] >> BUCKET_BITS] += 1
    bucket = sizes.size
    reached = 0
    while reached < depth:
        bucket -= 1
        reached += sizes[bucket]
    edge = np.full(1, bucket << BUCKET_BITS, np.uint32)
    return edge.view(np.float32)[0]


@compiled
def _score(weight: Float32, norm: Float32, scores: Float32) -> None:
    """Fill `scores` with the score of every neuron of a row."""
    for neuron in range(weight.size):
        scores[neuron] = weight[neuron] * norm[neuron]


@compiled
def _gather(scores: Float32, floor: Any, near: Int32) -> int:
    """Put the neurons that score at least `floor` at the front of `near`, in order; return how many there are."""
    found = 0
    for neuron in range(scores.size):
        near[found] = neuron  # written before it is known to count: quicker than a branch that is guessed wrong
        found += int(scores[neuron] >= floor)
    return found


@compiled
def _score_near(weight: Float32, norm: Float32, near: Int32, scores: Float32) -> None:
    """Fill the front of `scores` with the scores of the near neurons."""
    for entry in range(near.size):
        scores[entry] = weight[near[entry]] * norm[near[entry]]


@compiled
def _make_keys(scores: Float32, near: Int32, floor: Any, keys: UInt64) -> int:
    """Put the keys of the near neurons that score at least `floor` at the front of `keys`; return how many there are.

    Ascending keys are the ranking: the score's bits, inverted, above the neuron.
    """
    bits = scores.view(np.uint32)
    found = 0
    for entry in range(near.size):
        keys[found] = (np.uint64(~bits[entry]) << np.uint64(32)) | np.uint64(near[entry])
        found += int(scores[entry] >= floor)
    return found


@compiled
def _bucket_count(depth: int) -> int:
    """The power of two that is at least four times the depth."""
    count = 2
    while count < 4 * depth:
        count *= 2
    return count


@compiled
def _sort(keys: UInt64, buckets: Int32, ordered: UInt64) -> None:
    """Fill `ordered` with the keys, ascending: by their leading bits into buckets, then each to its place among few."""
    least = most = keys[0]
    for key in keys:
        least, most = min(least, key), max(most, key)
    shift = np.uint64(0)
    while (most - least) >> shift >= np.uint64(buckets.size):
        shift += np.uint64(1)
    buckets[:] = 0
    for key in keys:
        buckets[(key - least) >> shift] += 1
    start = 0
    clumps = 0
    for bucket in range(buckets.size):
        size = buckets[bucket]
        buckets[bucket] = start
        start += size
        clumps += size * size
    for key in keys:
        bucket = (key - least) >> shift
        ordered[buckets[bucket]] = key
        buckets[bucket] += 1
    if clumps > CLUMP * keys.size:
        ordered.sort()
    else:
        _insert(ordered)


@compiled
def _insert(ordered: UInt64) -> None:
    """Sort keys that are almost in place."""
    for entry in range(1, ordered.size):
        key = ordered[entry]
        place = entry
        while place > 0 and ordered[place - 1] > key:
            ordered[place] = ordered[place - 1]
            place -= 1
        ordered[place] = key


@compiled
def _write_ranks(
    ordered: UInt64,
    weight: Float32,
    target: Float32,
    reference: Float32,
    neuron: npt.NDArray[np.uint16],
    kept: npt.NDArray[np.bool_],
) -> Any:
    """Write the first keys' neurons, and whether each scores higher for the target; return the last one's score."""
    for rank in range(neuron.size):
        index = ordered[rank] & np.uint64(WIDEST)
        neuron[rank] = index
        kept[rank] = weight[index] * target[index] > weight[index] * reference[index]
    return weight[index] * target[index]
