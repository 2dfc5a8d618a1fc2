"""Plots of what the store knows of a concept: storage in, PNGs out. No torch, no model."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from storage.listing import latest_edit
from storage.models import ModelStore
from tasks.dask_client import dask_scheduler
from tasks.metrics import concept_charts as charts
from tasks.overlapping import plot_overlaps
from tasks.plot_data import Plots, Source
from tasks.pruning.masks import Bools, candidates
from tasks.pruning.stability import selection_frequency
from tasks.ranking import rank

NEURONS = 6  # whose energies are drawn
SAMPLES = 50  # of the bootstrap
SECONDS = 60.0  # for the bootstrap, unless the smallest site takes longer


def plot_concept(store: str, concept: str, folder: str, seconds: float = SECONDS) -> Plots:
    """Draw what the store knows of a concept's latest edit into a folder, <concept>-<what>.png.

    `seconds` bounds the bootstrap. Raises ValueError if there is no edit or the folder cannot be written.
    """
    edit = latest_edit(store, concept)
    if edit is None:
        raise ValueError(f"there is no edit of {concept} in {store}; run conceptprune erase {concept} first")
    source, masks, plots = Source(store, edit), edit.masks(), Plots(folder)
    densities = {name: float(mask.mean()) for name, mask in masks.items()}
    overall = sum(int(mask.sum()) for mask in masks.values()) / sum(mask.size for mask in masks.values())
    plots.put(f"{concept}-density-by-site.png", charts.density_by_site(concept, densities, overall))
    with dask_scheduler():
        if "combined" in source.prune:
            plots.notes.append(f"{concept} combines other edits, so it has no energies, votes or bootstrap of its own")
        elif not source.captured():
            plots.notes.append(f"the energies of {concept} are not in the store any more: no plots of them")
        else:
            rank(store, source.key, source.sites, source.sparsity)
            plot_energies(source, masks, plots)
            plot_skilled(source, plots)
            plot_frequencies(source, masks, plots, seconds)
        plot_overlaps(source, masks, plots)
    return plots


def plot_energies(source: Source, masks: Mapping[str, Bools], plots: Plots) -> None:
    """Energies over steps of the neuron that most rows prune, of the sites where most do."""
    shares = {name: mask.mean(0) for name, mask in masks.items() if mask.any()}
    most = sorted(shares, key=lambda name: (-shares[name].max(), name))[:NEURONS]
    traces = []
    for name in (site.name for site in source.sites if site.name in most):
        neuron, branch = int(shares[name].argmax()), source.prune["branch"]
        picked = [energy.isel(neuron=neuron) for energy in source.energies(name)]
        if branch != "both":
            picked = [energy.sel(branch=[branch]) for energy in picked]
        values = [energy.sum("branch", skipna=False).transpose("prompt", "step").values for energy in picked]
        traces.append(charts.Traces(name, neuron, float(shares[name][neuron]), *values))
    concept = source.edit.concept
    if traces:
        plots.put(f"{concept}-energies.png", charts.energies(concept, traces, source.prune["t_hat"]))
    else:
        plots.notes.append(f"the edit of {concept} prunes nothing: no neuron to draw")


def plot_skilled(source: Source, plots: Plots) -> None:
    """Share of the candidates that are skilled, by step: of each site, and of all together."""
    shares, kept, total = {}, 0.0, 0
    for site in source.sites:
        count = candidates(source.sparsity, site.width)
        ranking = source.ranking(site, count)
        shares[site.name] = ranking.kept.mean((1, 2))
        kept, total = kept + shares[site.name] * site.rows * count, total + site.rows * count
    concept = source.edit.concept
    chart = charts.skilled_shares(concept, shares, np.asarray(kept) / total, source.prune["t_hat"])
    plots.put(f"{concept}-skilled.png", chart)


def plot_frequencies(source: Source, masks: Mapping[str, Bools], plots: Plots, seconds: float) -> None:
    """Selection frequencies under a bootstrap of the prompts: the smallest sites first, as many as the time allows."""
    weights, start, pace = ModelStore(source.store, source.key.model), time.monotonic(), 0.0
    inside, outside = [], []
    done: list[str] = []
    for site in sorted(source.sites, key=lambda site: (site.rows * site.width, site.name)):
        size, began = site.rows * site.width, time.monotonic()
        if done and began - start + pace * size > seconds:
            break
        target, reference = source.energies(site.name)
        frequency = selection_frequency(
            target, reference, weights.weight(site.name)[:, site.start :], source.sparsity, source.prune["t_hat"],
            vote_share=source.prune["vote_share"], branch=source.prune["branch"], samples=SAMPLES,
        ).values  # fmt: skip
        pace = (time.monotonic() - began) / size
        inside.append(frequency[masks[site.name]])
        outside.append(frequency[~masks[site.name]])
        done.append(site.name)
    concept, every = source.edit.concept, len(source.sites)
    found = (np.concatenate(inside), np.concatenate(outside))
    plots.put(f"{concept}-frequency.png", charts.frequencies(concept, *found, SAMPLES, len(done), every))
    if len(done) < every:
        plots.notes.append(
            f"the bootstrap took {len(done)} of {every} sites, the smallest, in the {seconds:g} s that it may take: "
            f"{', '.join(done)}"
        )
