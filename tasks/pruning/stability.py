"""Stability: how far a mask depends on its prompts, and how far concepts share weights.

Selection frequency asks the first question with a bootstrap: draw the prompts again, with replacement, make the mask
that those prompts give, and count how often each weight is in it. A weight at 1 was chosen whatever the prompts were;
one near 0.5 was chosen by chance. Intersection over union (IoU) asks the second, of finished masks by site or of
rankings by step:

    iou(a, b) = weights in both / weights in either;  1 where neither has any

Two empty masks are equal, so their IoU is 1: it is 1 exactly where two masks are equal, and never NaN. Such a site
would raise a mean over sites, so a whole model's IoU is taken from the sums of its sites (`overall_iou`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.delayed import delayed

from tasks.diffusion.spec import Branch
from tasks.pruning.combining import check_masks
from tasks.pruning.masks import Bools, candidates, check_sparsity, mask
from tasks.pruning.norms import role_norms
from tasks.pruning.rankings import Float32, Ranking, compute, rank_rows

SAMPLES_AT_ONCE = 32  # whose norms are held together: 13 MB for 10 steps of the widest site of Stable Diffusion 1.5
ROWS_AT_ONCE = 64  # rows of one Dask task, over all samples at once

Ints = npt.NDArray[np.int64]
Energies = tuple[xr.DataArray, xr.DataArray]  # of the target and of the reference


def selection_frequency(
    target: xr.DataArray,
    reference: xr.DataArray,
    weight: Float32,
    sparsity: Decimal | str | float,
    t_hat: int,
    *,
    vote_share: float = 0.0,
    branch: Branch = "both",
    samples: int = 100,
    seed: int = 0,
    rows: Sequence[int] | None = None,
) -> xr.DataArray:
    """Share of bootstrap samples whose mask holds each weight, float32 (row, neuron), from 0 to 1.

    `target` and `reference` are one site's energies (prompt, step, branch, neuron), backed by NumPy or Dask; `weight`
    is the site's [out, neuron]. The other arguments mean what they do for `candidates`, `mask` and `role_norms`, and
    each sample's mask is made by these, of the prompts that `bootstrap` draws. `rows` are the rows of the weight to
    look at, all by default; they are the result's `row` coordinate. Its attrs hold the arguments.

    Holds the energies of the first t_hat steps and works in blocks of rows on Dask's current scheduler; neither
    chunks nor threads change a bit.

    Raises ValueError if samples is below 1, rows are not distinct rows of the weight, t_hat is not in 1 to the steps,
    the sparsity gives no candidate, and where `role_norms`, `rank_rows` and `mask` do.
    """
    _check_steps(target, reference, t_hat)
    draws = bootstrap(target.sizes.get("prompt", 1), reference.sizes.get("prompt", 1), samples, seed)
    chosen = _check_rows(rows, weight.shape[0])
    voting = _load(target, t_hat), _load(reference, t_hat)
    norms = role_norms(*voting, branch)
    width = norms[0].shape[1]
    site = str(target.name or "the site")
    check_sparsity(sparsity, {site: width})
    terms = candidates(sparsity, width), t_hat, vote_share
    _count_selected(weight[chosen[:1]], [norms], *terms)  # refuses now what every sample would refuse
    selected = _count_blocks(weight if rows is None else weight[chosen], voting, branch, draws, terms)
    return xr.DataArray(
        (selected / samples).astype(np.float32),
        dims=("row", "neuron"),
        coords={"row": chosen},
        name="selection_frequency",
        attrs={
            **{"long_name": "share of bootstrap samples that select the weight", "site": site, "branch": branch},
            **{"sparsity": str(sparsity), "t_hat": t_hat, "vote_share": vote_share, "samples": samples, "seed": seed},
        },
    )


def bootstrap(targets: int, references: int, samples: int, seed: int = 0) -> tuple[Ints, Ints]:
    """Prompts drawn with replacement for each sample: int64 [sample, prompt] of both roles, ascending in each sample.

    `targets` and `references` are how many prompts each role has; a sample has as many. Roles of one size are pairs of
    prompts, which stay together: both get the same draw. Roles that differ in size are drawn independently. The same
    seed draws the same, and more samples go on where fewer end.

    Raises ValueError if a role has no prompt, samples is below 1 or the seed is negative.
    """
    if targets < 1 or references < 1:
        raise ValueError(f"there are {targets} target and {references} reference prompts; each role needs at least one")
    if samples < 1:
        raise ValueError(f"samples is {samples}; it must be 1 or more, such as 100")
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more")
    ours, theirs = np.random.default_rng(seed).spawn(2)
    drawn = np.sort(ours.integers(targets, size=(samples, targets)), axis=1)
    if targets == references:
        return drawn, drawn
    return drawn, np.sort(theirs.integers(references, size=(samples, references)), axis=1)


def iou(masks: Mapping[str, Mapping[str, Bools]]) -> xr.DataArray:
    """IoU of each two concepts' masks at each site, float64 (concept, other, site), from 0 to 1.

    `masks` is {concept: {site: mask [out, neuron]}}. Two masks that prune nothing have IoU 1: see above.

    Raises ValueError if there is no concept or no site, a concept lacks a site of another, or a site's masks are not
    bool [out, neuron] of one shape.
    """
    return _as_iou(*_overlaps(masks), "site")


def overall_iou(masks: Mapping[str, Mapping[str, Bools]]) -> xr.DataArray:
    """IoU of each two concepts' masks over all sites together, float64 (concept, other), from 0 to 1.

    Every weight counts once, so large sites count for more. `masks` and the errors are those of `iou`.
    """
    shared, names = _overlaps(masks)
    return _as_iou(shared.sum(0, keepdims=True), {**names, "site": ["all"]}, "site").isel(site=0, drop=True)


def step_iou(rankings: Mapping[str, Ranking], width: int, count: int) -> xr.DataArray:
    """IoU of each two concepts' skilled weights of one site at each step, float64 (concept, other, step).

    `rankings` is {concept: ranking of the site}; `width` and `count` are those of `mask`. What is skilled at a step is
    the mask that this step would give alone. Two concepts without skilled weights have IoU 1: see above. Holds the
    masks of one step at a time.

    Raises ValueError if there is no concept, the rankings differ in steps or rows, and where `mask` does.
    """
    if not rankings:
        raise ValueError("there is no ranking to compare; give those of at least one concept")
    first = next(iter(rankings))
    steps, rows = rankings[first].neuron.shape[:2]
    for concept, ranking in rankings.items():
        if ranking.neuron.shape[:2] != (steps, rows):
            raise ValueError(
                f"the ranking of {concept} has {ranking.steps} steps and {ranking.neuron.shape[1]} rows, that of"
                f" {first} {steps} and {rows}; rank the same site of one profile"
            )
    shared = []
    for step in (slice(start, start + 1) for start in range(steps)):
        alone = [Ranking(ranking.neuron[step], ranking.kept[step]) for ranking in rankings.values()]
        shared.append(_count_shared([mask(ranking, width, count, 1) for ranking in alone]))
    return _as_iou(np.stack(shared), {"concept": list(rankings), "step": range(steps)}, "step")


def _check_steps(target: xr.DataArray, reference: xr.DataArray, t_hat: int) -> None:
    steps, others = target.sizes.get("step", t_hat), reference.sizes.get("step", t_hat)
    if steps != others:
        raise ValueError(
            f"target energies have {steps} steps, reference energies {others}; capture both roles with one profile"
        )
    if not 1 <= t_hat <= steps:
        raise ValueError(f"t_hat is {t_hat}; it must be in 1 to {steps}, the steps that were captured")


def _load(energy: xr.DataArray, t_hat: int) -> xr.DataArray:
    """The energies that vote, in memory; one without steps is left for `role_norms` to refuse."""
    return energy.isel(step=slice(t_hat), missing_dims="ignore").compute()


def _check_rows(rows: Sequence[int] | None, height: int) -> Ints:
    if rows is None:
        return np.arange(height)
    chosen = np.asarray(rows)
    whole = chosen.ndim == 1 and chosen.size > 0 and np.issubdtype(chosen.dtype, np.integer)
    if not whole or not ((chosen >= 0) & (chosen < height)).all() or np.unique(chosen).size < chosen.size:
        raise ValueError(f"rows are {rows}; expected distinct numbers from 0 to {height - 1}, the weight's rows")
    return chosen.astype(np.int64)


def _count_blocks(
    weight: Float32, voting: Energies, branch: Branch, draws: tuple[Ints, Ints], terms: tuple[int, int, float]
) -> npt.NDArray[np.uint32]:
    """How many samples select each weight [row, neuron]: a batch of samples at a time, blocks of rows side by side."""
    held = delayed(voting, traverse=False)  # one copy for all tasks
    selected = np.zeros(weight.shape, np.uint32)
    blocks = range(0, weight.shape[0], ROWS_AT_ONCE)
    for first in range(0, draws[0].shape[0], SAMPLES_AT_ONCE):
        batch = (drawn[first : first + SAMPLES_AT_ONCE] for drawn in draws)
        norms = [delayed(_draw_norms)(held, branch, *pair) for pair in zip(*batch, strict=True)]
        count = delayed(_count_selected)
        parts = compute(*(count(weight[row : row + ROWS_AT_ONCE], norms, *terms) for row in blocks))
        selected += np.concatenate(parts)
    return selected


def _draw_norms(voting: Energies, branch: Branch, ours: Ints, theirs: Ints) -> tuple[Float32, Float32]:
    """Norms of both roles over the drawn prompts; one that is drawn twice counts twice."""
    return role_norms(voting[0].isel(prompt=ours), voting[1].isel(prompt=theirs), branch)


def _count_selected(
    weight: Float32, norms: list[tuple[Float32, Float32]], count: int, t_hat: int, vote_share: float
) -> npt.NDArray[np.uint32]:
    """How many of the samples with these norms select each weight of some rows."""
    selected = np.zeros(weight.shape, np.uint32)
    for pair in norms:
        selected += mask(rank_rows(weight, *pair, count), weight.shape[1], count, t_hat, vote_share)
    return selected


def _overlaps(masks: Mapping[str, Mapping[str, Bools]]) -> tuple[Ints, dict[str, Any]]:
    """Weights shared at each site, [site, concept, other], and the names of sites and concepts."""
    if not masks or not all(masks.values()):
        raise ValueError("there is no mask to compare; give those of at least one concept at one site or more")
    first = next(iter(masks))
    for concept, sites in masks.items():
        unlike = sorted(masks[first].keys() ^ sites.keys())
        if unlike:
            raise ValueError(
                f"{concept} and {first} have masks of different sites, such as {unlike[0]}; compare edits of one"
                " model and the same site kinds"
            )
    shared = []
    for site in masks[first]:
        found = {concept: sites[site] for concept, sites in masks.items()}
        check_masks(found)
        shared.append(_count_shared(list(found.values())))
    return np.stack(shared), {"concept": list(masks), "site": list(masks[first])}


def _count_shared(masks: list[Bools]) -> Ints:
    """How many weights each two masks share, [concept, other]; the diagonal is each mask's own size."""
    bits = np.stack([np.packbits(mask) for mask in masks])
    return np.stack([np.bitwise_count(bits & own).sum(1, dtype=np.int64) for own in bits])


def _as_iou(shared: Ints, names: Mapping[str, Any], dim: str) -> xr.DataArray:
    """IoU (concept, other, dim) of shared weights [dim, concept, other]."""
    size = np.diagonal(shared, axis1=1, axis2=2)
    union = size[:, :, None] + size[:, None, :] - shared
    ratio = np.divide(shared, union, out=np.ones(shared.shape), where=union > 0)
    return xr.DataArray(
        ratio.transpose(1, 2, 0),
        dims=("concept", "other", dim),
        coords={"concept": names["concept"], "other": names["concept"], dim: names[dim]},
        name="iou",
        attrs={"long_name": "intersection over union of pruned weights"},
    )
