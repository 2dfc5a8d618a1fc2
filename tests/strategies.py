"""Hypothesis strategies for the pruning tests: small sites, with more ties, zeros and odd shapes than real ones."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

BRANCHES = ("uncond", "cond")

prompts = st.integers(1, 5)
steps = st.integers(1, 4)
widths = st.one_of(st.integers(1, 12), st.sampled_from([13, 16, 31, 40]))
few_values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 3.0])  # so that ties are the rule
weights = st.one_of(few_values, st.floats(-4, 4, width=32))
energies = st.one_of(st.sampled_from([0.0, 1.0, 4.0]), st.floats(0, 100, width=32))
whole_energies = st.integers(0, 1000).map(float)  # whose float64 sums are exact in any order
vote_shares = st.sampled_from(["0", "0.1", "0.25", "0.29", "0.3", "0.5", "0.7", "0.99"])


@dataclass(frozen=True, eq=False)
class Site:
    """What a ranking is made of."""

    weight: np.ndarray  # f4 [out, neuron]
    target: np.ndarray  # f4 [step, neuron]
    reference: np.ndarray  # f4 [step, neuron]

    @property
    def rows(self) -> int:
        return self.weight.shape[0]

    @property
    def width(self) -> int:
        return self.weight.shape[1]

    @property
    def steps(self) -> int:
        return self.target.shape[0]


@dataclass(frozen=True)
class Spec:
    """What a mask is made of, given a ranking; numbers as the text that a person wrote."""

    sparsity: str
    t_hat: int
    vote_share: str


def energy_arrays(steps=steps, widths=widths, values=energies):
    """Energies as a store gives them: f4, dims (prompt, step, branch, neuron), branches named."""

    def build(shape):
        return arrays(np.float32, shape, elements=values).map(
            lambda data: xr.DataArray(
                data, dims=("prompt", "step", "branch", "neuron"), coords={"branch": list(BRANCHES)}, name="unet.ff"
            )
        )

    shapes = st.tuples(prompts, steps, st.just(len(BRANCHES)), widths)
    return shapes.flatmap(build)


@st.composite
def energy_pairs(draw, values=energies):
    """Energies of a target and a reference prompt set of one site; the sets may differ in size."""
    target = draw(energy_arrays(values=values))
    steps, width = st.just(target.sizes["step"]), st.just(target.sizes["neuron"])
    return target, draw(energy_arrays(steps, width, values))


@st.composite
def sites(draw):
    """A site with norms of both roles; now and then all its weights are equal, so that every score ties."""
    rows, width, steps = draw(st.integers(1, 4)), draw(widths), draw(st.integers(1, 6))
    norms = arrays(np.float32, (steps, width), elements=energies)
    weight = st.one_of(
        arrays(np.float32, (rows, width), elements=weights),
        weights.map(lambda value: np.full((rows, width), value, np.float32)),
    )
    target = st.one_of(norms, energies.map(lambda value: np.full((steps, width), value, np.float32)))
    return Site(draw(weight), draw(target), draw(norms))


@st.composite
def specs(draw, width, steps):
    """A spec that a site of this width and number of steps accepts: at least one candidate."""
    least = -(-10_000 // width)
    share = draw(st.integers(least, 10_000))
    return Spec(f"{share / 10_000:.4f}", draw(st.integers(1, steps)), draw(vote_shares))
