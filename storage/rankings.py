"""Rankings, a cache: rankings/<profile>/<reference>-<target>-<suffix>.zarr. It may be deleted at any time.

<reference> and <target> are prompt sets; <suffix> is the first 8 hex digits of the digest of what else decides a
ranking once the profile is given: the model whose weights are scored, the branch, and the schema's version.

The file format, plain Zarr v3: root attributes schema, schema_version, ranking (profile, reference, target, model,
branch, and more); a group a site; in it a group for each depth that was asked for, named by it, holding

    neuron(step, row, rank)   u2, the best neurons of each row by target score, best first
    kept(step, row, byte)     u1, bits along rank in numpy.packbits order: 1 = target score above the reference's

and, where every step is the same, one step and the attribute once.

A chunk is all rows and ranks of some steps, 8 MB at most where one step allows, with a crc32c. A deeper ranking goes
beside a shallower one, so that nothing changes under a reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from storage import zarrs
from storage.names import digest
from storage.places import SEAL
from storage.roots import Root, RootLike

SCHEMA = "conceptprune-ranking"
SCHEMA_VERSION = 1
CHUNK_BYTES = 8_000_000


class RankingStore:
    """The rankings of every site for one pair of prompt sets."""

    def __init__(
        self,
        root: RootLike,
        profile: str,
        reference: str,
        target: str,
        *,
        model: str,
        branch: str,
        prompts: str | None = None,
    ) -> None:
        self._key = {"profile": profile, "reference": reference, "target": target, "model": model, "branch": branch}
        what = {"model": model, "branch": branch, "schema_version": SCHEMA_VERSION}
        if prompts is not None:  # a choice of the sets' slots
            self._key["prompts"] = what["prompts"] = prompts
        suffix = digest(what, 8)
        self.path = Root(root).path("rankings", profile, f"{reference}-{target}-{suffix}", suffix=".zarr")

    @property
    def url(self) -> str:
        """What xarray and zarr open."""
        return str(self.path)

    def depths(self) -> dict[str, int]:
        """How deep each site that is there has been ranked."""
        found: dict[str, int] = {}
        for name in self.path.files():  # one listing; a group's metadata is its last file
            site, _, rest = name.partition("/")
            depth, _, file = rest.partition("/")
            if file == SEAL:
                found[site] = max(found.get(site, 0), int(depth))
        return found

    def exists(self, depths: Mapping[str, int]) -> bool:
        """Whether each of these sites has been ranked at least so deep."""
        there = self.depths()
        return all(there.get(site, 0) >= depth for site, depth in depths.items())

    def write(self, site: str, neuron: NDArray[np.uint16], kept: NDArray[np.bool_], once: bool = False) -> None:
        """Stores one site's ranking, both [step, out, rank]; keeps what is there if that is as deep.

        `once` says that there is one step because every step is the same: `read` repeats it.
        """
        self.write_all({site: (neuron, kept)}, once=once)

    def write_all(
        self,
        rankings: Mapping[str, tuple[NDArray[np.uint16], NDArray[np.bool_]]],
        attributes: Mapping[str, object] | None = None,
        once: bool = False,
    ) -> None:
        """Stores {site: (neuron, kept)}, each [step, out, rank], a site at a time; see write.

        `attributes` join the root's when the store is new. Raises ValueError if a shape or dtype is wrong.
        """
        for site, (neuron, kept) in rankings.items():
            zarrs.check_group_name(site)
            if neuron.ndim != 3 or neuron.shape != kept.shape or neuron.dtype != np.uint16 or kept.dtype != np.bool_:
                raise ValueError(
                    f"the ranking of {site} is {neuron.dtype} {neuron.shape} and {kept.dtype} {kept.shape}; expected "
                    "uint16 and bool, both [step, out, rank]"
                )
        about = {**(attributes or {}), **self._key}
        own = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "ranking": about}
        zarrs.create(self.path, own, lambda group: None)
        for site, (neuron, kept) in rankings.items():
            zarrs.create(self.path / site, {}, lambda group: None, drafts=self.path.parent)
            self._add(site, neuron, kept, once)

    def read(
        self, site: str, steps: int | None = None, depths: Mapping[str, int] | None = None
    ) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
        """The deepest ranking of a site: neuron and kept, both [step, out, rank], rank up to depths()[site].

        With `steps`, only the first so many are read; of a site that is the same at every step so many are given.
        `depths` saves the listing where the caller has it. Raises ValueError if there is no ranking of the site,
        DamagedStore if it is damaged.
        """
        depth = (self.depths() if depths is None else depths).get(site)
        if depth is None:
            raise ValueError(f"{self.path} holds no ranking of {site}; rank the concept first")
        with zarrs.reading(f"{self.path}: the ranking of {site}", "delete it, the next run ranks again"):
            group = zarrs.open_group(self.path / site / str(depth))
            packed, neuron = (np.asarray(zarrs.array(group, name)[:steps]) for name in ("kept", "neuron"))
            kept = np.unpackbits(packed, axis=-1, count=depth).view(np.bool_)
            if steps is not None and group.attrs.get("once"):
                neuron, kept = (np.broadcast_to(one, (steps, *one.shape[1:])) for one in (neuron, kept))
            return neuron, kept

    def attributes(self) -> dict[str, Any]:
        """What it is a ranking of."""
        return dict(zarrs.attributes(zarrs.open_group(self.path))["ranking"])

    def _add(self, site: str, neuron: NDArray[np.uint16], kept: NDArray[np.bool_], once: bool) -> None:
        _, rows, depth = neuron.shape
        packed = np.packbits(kept, axis=-1)
        steps = max(1, min(len(neuron), CHUNK_BYTES // max(1, neuron[:1].nbytes)))

        def fill(group: zarr.Group) -> None:
            zarrs.add_array(group, "neuron", ["step", "row", "rank"], neuron, (steps, rows, depth))
            zarrs.add_array(group, "kept", ["step", "row", "byte"], packed, (steps, *packed.shape[1:]))

        zarrs.create(
            self.path / site / str(depth),
            {"depth": depth, **({"once": True} if once else {})},
            fill,
            drafts=self.path.parent,
        )
