"""The method as plain loops over plain numbers: what tasks/pruning must agree with, written without it.

Arguments are nested lists (or arrays, read one number at a time). Nothing here is vectorised, sorted in place or shared
with the code under test; where the method rounds to float32, so does this, one number at a time.
"""

from decimal import Decimal
from fractions import Fraction
from math import floor, sqrt

import numpy as np


def energy(activations):
    """Energy [neuron] of one Linear's input [token][neuron], in float64: each token has length 1, a zero token none."""
    total = [0.0] * len(activations[0])
    for token in activations:
        length = sqrt(sum(float(value) ** 2 for value in token))
        if length > 0:
            for neuron, value in enumerate(token):
                total[neuron] += (float(value) / length) ** 2
    return total


def norms(energies, branches, mean=False):
    """Norms [step][neuron], float32, of energies [prompt][step][branch][neuron] over the branches of these indices."""
    table = []
    for step in range(len(energies[0])):
        row = []
        for neuron in range(len(energies[0][0][0])):
            total = 0.0
            for prompt in energies:
                for branch in branches:
                    total += float(prompt[step][branch][neuron])
            row.append(np.float32(sqrt(total / len(energies) if mean else total)))
        table.append(row)
    return table


def score(weight, norm):
    """Wanda's score of one weight, a float32 product."""
    return np.float32(abs(np.float32(weight)) * np.float32(norm))


def ranking(weights, norm, count):
    """The `count` best neurons of one row of weights under one step's norms: highest score first, ties to the lower."""
    left = list(range(len(weights)))
    ranked = []
    for _ in range(count):
        best = left[0]
        for neuron in left:
            if score(weights[neuron], norm[neuron]) > score(weights[best], norm[best]):
                best = neuron
        left.remove(best)
        ranked.append(best)
    return ranked


def candidates(sparsity, width):
    """floor(sparsity * width) for a sparsity written as decimal text."""
    return floor(Fraction(Decimal(sparsity)) * width)


def votes(weight, target, reference, count, t_hat):
    """Votes [out][neuron] for weights [out][neuron] and norms [step][neuron]."""
    table = []
    for weights in weight:
        row = [0] * len(weights)
        for step in range(t_hat):
            for neuron in ranking(weights, target[step], count):
                if score(weights[neuron], target[step][neuron]) > score(weights[neuron], reference[step][neuron]):
                    row[neuron] += 1
        table.append(row)
    return table


def mask(weight, target, reference, sparsity, t_hat, vote_share="0"):
    """Mask [out][neuron] for weights [out][neuron], norms [step][neuron], a sparsity and vote share in decimal text."""
    count = candidates(sparsity, len(weight[0]))
    needed = Fraction(Decimal(vote_share)) * t_hat
    return [[number > needed for number in row] for row in votes(weight, target, reference, count, t_hat)]


def patched(weight, mask):
    """Weights [out][neuron] with the masked ones at zero."""
    return [
        [0.0 if pruned else value for value, pruned in zip(weights, row, strict=True)]
        for weights, row in zip(weight, mask, strict=True)
    ]


def combined(erased, protected):
    """Mask [out][neuron] of what any of the erased masks prunes and none of the protected ones does."""
    return [
        [
            any(mask[row][neuron] for mask in erased) and not any(mask[row][neuron] for mask in protected)
            for neuron in range(len(erased[0][row]))
        ]
        for row in range(len(erased[0]))
    ]


def iou(masks, others):
    """Weights in both over weights in either, for two lists of masks [out][neuron], a site each; 1 when in neither."""
    both = either = 0
    for mask, other in zip(masks, others, strict=True):
        for row, other_row in zip(mask, other, strict=True):
            for one, two in zip(row, other_row, strict=True):
                both += bool(one and two)
                either += bool(one or two)
    return both / either if either else 1.0


def frequency(weight, target, reference, branches, draws, sparsity, t_hat, vote_share="0"):
    """Share [out][neuron], float32, of draws (target prompts, reference prompts) whose mask holds the weight.

    `target` and `reference` are energies [prompt][step][branch][neuron].
    """
    table = [[0] * len(weights) for weights in weight]
    for ours, theirs in draws:
        unequal = len(ours) != len(theirs)
        first = norms([target[prompt] for prompt in ours], branches, unequal)
        second = norms([reference[prompt] for prompt in theirs], branches, unequal)
        for row, pruned in enumerate(mask(weight, first, second, sparsity, t_hat, vote_share)):
            for neuron, value in enumerate(pruned):
                table[row][neuron] += bool(value)
    return [[np.float32(number / len(draws)) for number in row] for row in table]


def slots(prompts: str) -> list[int]:
    """The slots of a choice such as "0-2,5"."""
    found = []
    for part in prompts.split(","):
        first, _, last = part.partition("-")
        slot = int(first)
        while slot <= int(last or first):
            found.append(slot)
            slot += 1
    return found
