"""A model's neuron sites and what capturing them costs, from the model's files alone."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from flows.config import Common
from tasks.checking import model_sites
from tasks.diffusion.spec import NeuronSite
from tasks.naming import words

STEPS = 50  # denoiser calls that costs are given for, if none are


@dataclass(frozen=True)
class SiteList:
    """Sites of a model, with what the energies of a prompt take."""

    model: str
    family: str
    kinds: list[str]  # that the model has
    steps: int
    branches: int
    sites: list[NeuronSite]

    def bytes_of(self, site: NeuronSite) -> int:
        """Bytes of a prompt's energies; 0 where another site has them."""
        return 0 if site.source else 4 * site.width * self.branches * (1 if site.once else self.steps)

    def as_json(self) -> dict[str, Any]:
        """The command line's JSON document."""
        rows = [{**site.as_json(), "weights": site.width * site.rows, "bytes": self.bytes_of(site)}
                for site in self.sites]  # fmt: skip
        return {**vars(self), "sites": rows}


def list_sites(base: Common, kinds: str | None, match: str | None, steps: int | None) -> SiteList:
    """The sites of a model that fit. Raises ValueError in one sentence if there is no such model, kind or site."""
    if steps is not None and steps < 1:
        raise ValueError(f"steps is {steps}; it must be 1 or more")
    family, known, found = model_sites(base.model_spec, words(kinds))
    chosen = [site for site in found if match is None or fnmatchcase(site.name, match)]
    if not chosen:
        raise ValueError(
            f"none of the {len(found)} sites of {base.model} is named {match}; leave --match out to see them"
        )
    return SiteList(base.model, family.name, known, steps or STEPS, 2 if family.halves else 1, chosen)
