"""Weights of a model's sites, so that offline work needs no torch: models/<model>.zarr.

The file format, plain Zarr v3: root attributes schema, schema_version, sites (names, in the model's order) and model
(whatever describes it); a group a site with attributes kind, width, rows, dtype ("float32", "float16" or "bfloat16")
and sha256 (of the weight's bytes), holding weight(row, neuron), all inputs of the Linear, in that dtype; bfloat16,
which Zarr lacks, as its bits, u2. One chunk a weight, with a crc32c.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from storage import tensors, zarrs
from storage.names import sha256
from storage.places import SEAL
from storage.roots import Root, RootLike
from tasks.diffusion.spec import NeuronSite

SCHEMA = "conceptprune-model"
SCHEMA_VERSION = 1


class ModelStore:
    """The sites of one model and their weights; written once."""

    def __init__(self, root: RootLike, model: str) -> None:
        self.path = Root(root).path("models", model, suffix=".zarr")

    @property
    def url(self) -> str:
        """What xarray and zarr open."""
        return str(self.path)

    def exists(self) -> bool:
        """Whether it has been written."""
        return (self.path / SEAL).exists()

    def write(
        self, weights: Mapping[str, NDArray[Any]], sites: Sequence[NeuronSite], attributes: Mapping[str, object]
    ) -> None:
        """Writes {site: weight [out, in]} of all sites at once: float32, float16, or uint16 for bfloat16's bits.

        Nothing happens if it is there already. Raises ValueError if weights and sites do not fit together, or if what
        is there was written from anything else.
        """
        groups = {site.name: _site_group(site, weights) for site in sites}
        if not groups or set(groups) != set(weights):
            raise ValueError(f"{len(weights)} weights for {len(groups)} sites; give one for each, and at least one")
        own = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "sites": list(groups), "model": dict(attributes)}

        def fill(group: zarr.Group) -> None:
            for name, facts in groups.items():
                zarrs.add_array(group.create_group(name, attributes=facts), "weight", ["row", "neuron"], weights[name])

        if self.exists() or not zarrs.create(self.path, own, fill):
            group = zarrs.open_group(self.path)
            if zarrs.attributes(group) != own or any(group[name].attrs.asdict() != groups[name] for name in groups):
                raise ValueError(f"{self.path} holds another model; give this one another name, or delete that one")

    def sites(self) -> list[NeuronSite]:
        """The sites, in the model's order."""
        return zarrs.read_sites(self.path)

    def attributes(self) -> dict[str, Any]:
        """What it was written with."""
        return dict(zarrs.attributes(zarrs.open_group(self.path))["model"])

    def dtype(self, site: str) -> str:
        """The dtype of a site's weight in the model: "float32", "float16" or "bfloat16"."""
        return str(zarrs.attributes(zarrs.open_site(self.path, site))["dtype"])

    def weight(self, site: str) -> NDArray[np.float32]:
        """A site's weight [out, in] as float32, exactly. Raises ValueError if unknown, DamagedStore if damaged."""
        group = zarrs.open_site(self.path, site)
        with zarrs.reading(f"{self.path}: the weight of {site}", "delete the store, the next run writes it again"):
            return tensors.widen(zarrs.read_all(group, "weight"))


def _site_group(site: NeuronSite, weights: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """The attributes of one site's group. Raises ValueError if its weight is missing or does not fit."""
    weight = weights.get(site.name)
    if weight is None or weight.shape != (site.rows, site.inputs):
        got = "missing" if weight is None else f"of shape {weight.shape}"
        raise ValueError(f"the weight of {site.name} is {got}; expected [out, in] = {(site.rows, site.inputs)}")
    names = [name for name, kind in tensors.DTYPES.items() if weight.dtype == kind]
    if not names:
        raise ValueError(
            f"the weight of {site.name} is {weight.dtype}; expected float32, float16, or uint16 (bfloat16)"
        )
    return {**zarrs.site_attributes(site), "dtype": names[0], "sha256": sha256(weight.tobytes())}
