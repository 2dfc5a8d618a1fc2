"""Attacks on the bundled model with the fox erased: the benchmark's own code, at small budgets.

Slow: an erasure, and some 150 pictures.
"""

import pytest

from flows.config import Request
from flows.erase_concept import erase
from flows.plan import make_plan
from flows.steps import Steps
from tasks.attacks.hiding import best_threshold, found_by_zeros, hidden
from tasks.attacks.inversion import InversionSpec
from tasks.attacks.revival import CompletionSpec, restored, zeros_of
from tasks.diffusion.pruned import replaced
from tests.attack_cases import as_found
from tests.benchmarks.attacks import Bench, completed, inverted, opened

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    store = tmp_path_factory.mktemp("attacked")
    erase(make_plan(Request(concept="fox", store=str(store), evaluate=False)), Steps())
    return opened(str(store), "fox")


@pytest.fixture(scope="module")
def erased(bench: Bench) -> float:
    with bench.edit():
        return bench.share(bench.asked())


def test_the_edit_holds_before_it_is_attacked(erased: float) -> None:
    assert erased <= 1 / 3


def test_inversion_learns_a_concept_that_is_there(bench: Bench) -> None:
    """On the unedited model, from no word: so what it does not find in an edited one is not for want of learning."""
    before = as_found(bench.pipe)
    assert inverted(bench, InversionSpec(budget=80, learning_rate=0.02))[1] >= 0.5
    assert as_found(bench.pipe) == before


def test_zeros_alone_bring_the_concept_back(bench: Bench, erased: float) -> None:
    """ "Roots Beneath the Cut": rank 16, the magnitudes of the rows' largest, with no data and no training."""
    before = as_found(bench.pipe)
    positions = {name: zeros_of(weight) for name, weight in bench.edited.items()}
    values = completed(bench.edited, positions, CompletionSpec(rank=16))
    weights = {name: restored(bench.edited[name], positions[name], values[name]) for name in positions}
    with replaced(bench.pipe, weights):
        assert bench.share(bench.asked()) >= erased + 0.3
    assert as_found(bench.pipe) == before


def test_zeros_are_the_mask_and_small_values_hide_it_in_part(bench: Bench) -> None:
    masks = [*bench.masks.values()]
    assert found_by_zeros([*bench.edited.values()], masks).f1 == 1
    weights = [hidden(bench.base[name], mask, 0.2) for name, mask in bench.masks.items()]
    assert found_by_zeros(weights, masks).f1 == 0
    assert 0.4 < best_threshold(weights, masks).f1 < 0.8
