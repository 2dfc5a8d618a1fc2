"""What stores with a slot a prompt share: one plan, prompts along the first dim, a mark of each that is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import numpy as np
import zarr

from storage import zarrs
from storage.names import digest
from storage.places import SEAL, Place
from tasks.concepts.prompts import Prompt


class PromptStore:
    """A Zarr store of one prompt set under one profile; nothing is touched before a method is called."""

    schema: ClassVar[str]
    schema_version: ClassVar[int]
    remedy: ClassVar[str]  # what to do if its plan is damaged
    otherwise: ClassVar[str]  # what to do if it was planned from something else

    def __init__(self, path: Place) -> None:
        self.path = path

    @property
    def url(self) -> str:
        """What `storage.opening`, xarray and zarr open."""
        return str(self.path)

    def exists(self) -> bool:
        """Whether it has been planned."""
        return (self.path / SEAL).exists()

    def pending(self) -> list[int]:
        """The slots, indices along prompt, that are not complete."""
        with self._reading("the marks of completeness"):
            return [int(slot) for slot in np.flatnonzero(self._complete()[...] != 1)]

    def size(self) -> int:
        """How many prompts were planned."""
        return int(self._complete().shape[0])

    def prompts(self) -> list[tuple[str, int]]:
        """The (text, seed) of every slot, in order."""
        with self._reading("its list of prompts"):
            group = zarrs.open_group(self.path)
            texts, seeds = zarrs.read_all(group, "text"), zarrs.read_all(group, "seed")
        return [(str(text), int(seed)) for text, seed in zip(texts, seeds, strict=True)]

    def missing(self, slots: Iterable[int]) -> dict[int, Prompt]:
        """The prompts of those of the slots that are not complete, in order."""
        wanted = set(self.pending()) & set(slots)
        return {slot: Prompt(*prompt) for slot, prompt in enumerate(self.prompts() if wanted else []) if slot in wanted}

    def reset(self, slot: int) -> None:
        """Makes one prompt pending again: what to do about a damaged one."""
        marks = self._complete(zarrs.open_group(self.path, writable=True))
        marks.with_config({"write_empty_chunks": True})[slot] = 0  # else 0 would be written as no chunk at all

    def _lay_out(
        self,
        attributes: Mapping[str, object],
        profile: Mapping[str, object],
        prompts: Sequence[Prompt],
        branches: Sequence[str],
        planned: Mapping[str, object],
        fill: Callable[[zarr.Group], None],
    ) -> None:
        """Creates the store with what `fill` adds, or finds it there. Any number of planners may race.

        `planned` are further parts of the plan, of which a digest is kept. Raises ValueError if a store that is there
        already was planned from anything else.
        """
        parts = {"prompts": [[prompt.text, prompt.seed] for prompt in prompts], **planned, "branches": list(branches),
                 "profile": dict(profile)}  # fmt: skip
        own: dict[str, Any] = {
            "schema": self.schema,
            "schema_version": self.schema_version,
            **attributes,
            "profile": dict(profile),
            "planned": {part: digest(what) for part, what in parts.items()},
            "coordinates": "text seed timestep",  # what xarray shall not take for data
        }
        if self.exists() or not zarrs.create(self.path, own, fill):
            self._check_planned(own)

    def _marks(self, slot: int, group: zarr.Group) -> zarr.Array[Any]:
        """The marks of completeness, for writing that of a slot. Raises ValueError if there is no such slot."""
        marks = self._complete(group)
        if not 0 <= slot < marks.shape[0]:
            raise ValueError(f"slot {slot} is not one of the {marks.shape[0]} prompts planned in {self.path}")
        return marks

    def _complete(self, group: zarr.Group | None = None) -> zarr.Array[Any]:
        return zarrs.array(group or zarrs.open_group(self.path), "complete")

    def _reading(self, what: str) -> AbstractContextManager[None]:
        return zarrs.reading(f"{self.path}: {what}", self.remedy)

    def _check_planned(self, own: Mapping[str, Any]) -> None:
        there = zarrs.attributes(zarrs.open_group(self.path))
        if (there.get("schema"), there.get("schema_version")) != (self.schema, self.schema_version):
            raise ValueError(
                f"{self.path} is not of schema {self.schema} {self.schema_version}; delete it or choose another root"
            )
        if differ := [part for part, value in own["planned"].items() if there["planned"].get(part) != value]:
            raise ValueError(f"{self.path} was planned with other {' and '.join(differ)}; {self.otherwise}")
