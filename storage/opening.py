"""Stores of activations as labelled xarray, by URL: what notebooks and questions of one's own begin with.

    tree = open_activations("conceptprune-store/activations/<profile>/<prompt-set>.zarr")
    energy = tree["unet.mid_block.attentions.0.transformer_blocks.0.ff.net.2"]["energy"]  # prompt, step, branch, neuron
    energy.sel(branch="cond", neuron=17).mean("prompt").plot()

Any Zarr reader opens these stores too. What this one adds: a chunk that is damaged or gone raises DamagedStore where a
plain reader shows NaN or another error, a prompt that is not complete reads as NaN even where a part of it is there,
and every variable carries all its labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
import zarr

from storage import zarrs
from storage.activations import ActivationStore
from storage.blocks import lazy_array
from storage.parallel import at_once
from storage.prompt_stores import PromptStore
from storage.roots import RootLike, place_at
from storage.tier_arrays import VARIABLES
from storage.tiers import TierStore

DAMAGED = "make it pending with the store's reset(slot), then run the same command again"
LABELS = {"prompt": "prompt", "text": "prompt", "seed": "prompt", "complete": "prompt", "step": "step",
          "timestep": "step", "branch": "branch"}  # fmt: skip


def open_activations(url: RootLike) -> xr.DataTree:
    """The energies of a prompt set, by the URL of its store: a directory or an object store's prefix.

    The root has coords prompt (a digest), text, seed, step, timestep and branch, the variable complete (prompt), and
    attrs `profile` and `sites`, the names in the model's order. Each site is a child with `energy` (prompt, step,
    branch, neuron) f4, dimensionless, a dask chunk a prompt, with all coords and one of neuron, and attrs kind, width
    and rows; without step where `once` says that it is the same at every step. A prompt that was pending when the store
    was opened is NaN. Raises ValueError if there is no such store; computing raises DamagedStore for a chunk that is
    damaged or gone.
    """
    return _open(url, ActivationStore)


def open_tier(url: RootLike) -> xr.DataTree:
    """A tier of a prompt set, by the URL of its store: as `open_activations`, with other variables.

    A pooled tier has `mean`, `absmax` and `positive` (prompt, step, branch, neuron) f4, a dask chunk a prompt; a raw
    one `activation` (prompt, step, branch, token, neuron) f2, a dask chunk a prompt and step. Sites have the attrs
    tokens and grid too; where tokens form a grid, the coords `y` and `x` along token are their row and column.
    """
    return _open(url, TierStore)


def _open(url: RootLike, kind: type[PromptStore]) -> xr.DataTree:
    path = place_at(url)
    group = zarrs.open_group(path)
    facts = zarrs.attributes(group)
    if (facts.get("schema"), facts.get("schema_version")) != (kind.schema, kind.schema_version):
        wanted = f"{kind.schema} {kind.schema_version}"
        raise ValueError(f"{path} is of schema {facts.get('schema')}, not {wanted}; give another URL")
    variables = [variable.name for variable in VARIABLES[facts["kind"]]] if "kind" in facts else ["energy"]
    remedy = "delete the store and run the same command again"
    with zarrs.reading(f"{path}: its list of prompts and steps", remedy):
        read = dict(zip(LABELS, at_once(lambda name: zarrs.read_all(group, name), LABELS), strict=True))
        found = at_once(lambda name: _nodes(group, name, variables), facts["sites"])
    labels = {name: (dim, read[name]) for name, dim in LABELS.items() if name != "complete"}
    pending = frozenset(np.flatnonzero(read["complete"] != 1).tolist())
    prompts = tuple(str(name) for name in read["prompt"])
    tree = {"/": xr.Dataset({"complete": ("prompt", read["complete"])}, labels, facts)}
    for name, (attrs, nodes) in zip(facts["sites"], found, strict=True):
        data = {}
        for node in nodes:
            array = f"{attrs.get('source', name)}/{node.basename}"
            lazy = lazy_array(path, array, node, array, DAMAGED, prompts, pending)
            data[node.basename] = (_dims(node), lazy, node.attrs.asdict())
        tree[name] = xr.Dataset(data, {**labels, **_own_labels(attrs, data)}, attrs)
    return xr.DataTree.from_dict(tree)


def _nodes(group: zarr.Group, site: str, variables: Sequence[str]) -> tuple[dict[str, Any], list[zarr.Array[Any]]]:
    own = group[site]
    if not isinstance(own, zarr.Group):
        raise KeyError(f"{site} is not a group")
    attrs = zarrs.attributes(own)
    return attrs, [zarrs.array(group, f"{attrs.get('source', site)}/{name}") for name in variables]


def _dims(node: zarr.Array[Any]) -> tuple[str, ...]:
    return tuple(str(name) for name in getattr(node.metadata, "dimension_names", None) or ())


def _own_labels(attrs: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of a site's neurons, and the places of its tokens."""
    own: dict[str, Any] = {"neuron": ("neuron", np.arange(attrs["width"]))}
    if any("token" in dims for dims, *_ in data.values()):
        own["token"] = ("token", np.arange(attrs["tokens"]))
        if attrs["grid"]:
            own["y"], own["x"] = (("token", where) for where in np.unravel_index(own["token"][1], attrs["grid"]))
    return own
