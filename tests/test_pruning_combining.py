import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasks.pruning.combining import Overlap, check_masks, combine, overlaps
from tasks.pruning.masks import candidates, mask
from tasks.pruning.rankings import rank_rows
from tests import oracle, strategies

NAMES = ("fox", "owl", "monet", "cubism", "nudity")


@st.composite
def concepts(draw, least=1):
    """Masks {concept: mask} of one site; now and then one is empty or full."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 9)))
    masks = st.one_of(arrays(np.bool_, shape), st.booleans().map(lambda value: np.full(shape, value)))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=least, unique=True))
    return {name: draw(masks) for name in names}


@st.composite
def roles(draw):
    """Erased masks, at least one, and protected ones."""
    names = list(draw(concepts()).items())
    cut = draw(st.integers(1, len(names)))
    return dict(names[:cut]), dict(names[cut:])


def arrange(masks, random):
    """The same masks, in another order."""
    names = list(masks.items())
    random.shuffle(names)
    return dict(names)


@given(roles())
def test_combinations_equal_the_oracle(masks):
    erased, protected = masks
    found = combine(erased, protected)
    assert found.dtype == np.bool_
    assert found.tolist() == oracle.combined(list(erased.values()), list(protected.values()))


@given(roles(), st.randoms(use_true_random=False))
def test_order_is_irrelevant(masks, random):
    erased, protected = masks
    mixed = combine(arrange(erased, random), arrange(protected, random))
    np.testing.assert_array_equal(mixed, combine(erased, protected))
    assert overlaps(arrange(erased, random), arrange(protected, random)) == overlaps(erased, protected)


@given(concepts(least=2))
def test_a_union_grows_with_each_concept(masks):
    names = list(masks)
    unions = [combine({name: masks[name] for name in names[:end]}) for end in range(1, len(names) + 1)]
    for fewer, more in zip(unions, unions[1:], strict=False):
        assert (fewer <= more).all()
    for one in masks.values():
        assert (one <= unions[-1]).all()


@given(roles())
def test_protection_wins(masks):
    erased, protected = masks
    found = combine(erased, protected)
    assert (found <= combine(erased)).all()
    for kept in protected.values():
        assert not (found & kept).any()


@given(roles(), st.data())
def test_adding_and_removing_a_concept_gives_the_original(masks, data):
    erased, protected = masks
    before = combine(erased, protected)
    new = data.draw(arrays(np.bool_, before.shape), "new")
    for role in (erased, protected):
        role["new"] = new
        combine(erased, protected)
        del role["new"]
        np.testing.assert_array_equal(combine(erased, protected), before)


@given(roles())
def test_the_masks_are_left_alone_and_not_shared(masks):
    erased, protected = masks
    before = {name: one.copy() for name, one in {**erased, **protected}.items()}
    combine(erased, protected)[...] = True
    combine(erased)[...] = False
    for name, one in {**erased, **protected}.items():
        np.testing.assert_array_equal(one, before[name])


def test_read_only_masks_from_a_store_are_combined():
    frozen = np.array([[True, False]])
    frozen.setflags(write=False)
    assert combine({"fox": frozen}, {"owl": ~frozen}).tolist() == [[True, False]]


@pytest.mark.parametrize("vote_share", ["0", "0.3", "0.5", "0.99"])
def test_fault_12_a_union_with_a_vote_share_drops_no_earlier_concept(vote_share):
    # Three concepts, each with its own k and t_hat, whose skilled neurons are not the others': votes counted across
    # concepts would leave those of each below the share of all steps, or those of the last concept alone.
    weight = np.ones((2, 12), np.float32)
    reference = np.ones((6, 12), np.float32)
    masks, asked = {}, {}
    for number, (sparsity, t_hat) in enumerate([("0.34", 6), ("0.17", 4), ("0.25", 2)]):
        target = reference.copy()
        target[:, 4 * number : 4 * number + 4] = [9, 8, 7, 6]
        count = candidates(sparsity, 12)
        masks[NAMES[number]] = mask(rank_rows(weight, target, reference, count), 12, count, t_hat, float(vote_share))
        asked[NAMES[number]] = set(range(4 * number, 4 * number + count))
        expected = oracle.mask(weight, target, reference, sparsity, t_hat, vote_share)
        assert masks[NAMES[number]].tolist() == expected
    union = combine(masks)
    for row in union:
        assert set(np.flatnonzero(row)) == set().union(*asked.values()) == {0, 1, 2, 3, 4, 5, 8, 9, 10}


@given(strategies.sites(), st.data())
def test_fault_12_each_concept_brings_its_own_k(site, data):
    masks, expected = {}, []
    for name in NAMES[: data.draw(st.integers(1, 3), "concepts")]:
        spec = data.draw(strategies.specs(site.width, site.steps), name)
        target = data.draw(arrays(np.float32, site.target.shape, elements=strategies.energies), f"norms of {name}")
        count = candidates(spec.sparsity, site.width)
        ranking = rank_rows(site.weight, target, site.reference, count)
        masks[name] = mask(ranking, site.width, count, spec.t_hat, float(spec.vote_share))
        expected.append(oracle.mask(site.weight, target, site.reference, *vars(spec).values()))
    assert combine(masks).tolist() == oracle.combined(expected, [])


@given(roles())
def test_overlaps_count_what_is_spared(masks):
    erased, protected = masks
    report = overlaps(erased, protected)
    assert list(report) == list(erased)
    for name, found in report.items():
        own = erased[name]
        assert found.weights == sum(map(sum, own.tolist()))
        assert found.weights - found.spared == combine({name: own}, protected).sum()
        assert dict(found.by) == {other: (own & kept).sum() for other, kept in protected.items()}
        assert max(found.by.values(), default=0) <= found.spared <= min(found.weights, sum(found.by.values()))


def test_overlaps_of_sites_add():
    one, two = Overlap(10, 3, {"owl": 2, "monet": 2}), Overlap(5, 1, {"monet": 1, "cubism": 0})
    assert one + two == Overlap(15, 4, {"owl": 2, "monet": 3, "cubism": 0})
    assert overlaps({"fox": np.eye(2, dtype=bool)}) == {"fox": Overlap(2, 0, {})}


def test_an_overlap_reads_as_json_numbers():
    fox, owl = np.array([[True, True, False]]), np.array([[False, True, True]])
    found = overlaps({"fox": fox}, {"owl": owl})["fox"]
    assert found == Overlap(2, 1, {"owl": 1})
    assert {type(found.weights), type(found.spared), type(found.by["owl"])} == {int}


ONES = np.ones((2, 3), bool)


@pytest.mark.parametrize("call", [combine, overlaps])
class TestRefused:
    def test_nothing_to_erase(self, call):
        with pytest.raises(ValueError, match="no concept is erased; give the mask of at least one"):
            call({}, {"owl": ONES})

    def test_concepts_in_both_roles(self, call):
        with pytest.raises(ValueError, match="^fox, owl: erased and protected at once"):
            call({"owl": ONES, "fox": ONES, "monet": ONES}, {"fox": ONES, "cubism": ONES, "owl": ONES})

    @pytest.mark.parametrize("shape", [(2, 4), (1, 3), (3, 2)])
    def test_shapes_that_differ(self, call, shape):
        wrong = np.ones(shape, bool)
        message = rf"the mask of owl has the shape \({shape[0]}, {shape[1]}\), that of fox \(2, 3\)"
        with pytest.raises(ValueError, match=message):
            call({"fox": ONES, "owl": wrong})
        with pytest.raises(ValueError, match=message):
            call({"fox": ONES}, {"owl": wrong})  # numpy would stretch a single row

    @pytest.mark.parametrize("wrong", [ONES.astype(np.uint8), ONES.astype(np.float32), ONES[0], ONES[None]])
    def test_what_is_no_mask(self, call, wrong):
        with pytest.raises(ValueError, match=r"the mask of owl is \w+ \(.*\); expected bool \[out, neuron\]"):
            call({"fox": ONES}, {"owl": wrong})
        with pytest.raises(ValueError, match=r"the mask of owl is"):
            call({"owl": wrong})


def test_no_masks_are_masks_of_one_site():
    check_masks({})
