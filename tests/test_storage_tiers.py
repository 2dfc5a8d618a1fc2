"""The tier store: its layout, its price, what it accepts, and that a rerun does only what is missing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from storage.opening import open_tier
from storage.places import Place
from storage.tier_arrays import VARIABLES, Tokens, price
from storage.tiers import TierStore
from storage.zarrs import DamagedStore
from tasks.concepts.prompts import Prompt
from tasks.diffusion.spec import CaptureSpec, NeuronSite, TierKind, TierSpec
from tests.activation_cases import BRANCHES, PROFILE, PROMPTS, SITES, TIMESTEPS
from tests.storage_cases import delete, drafts, flip
from tests.tier_cases import STEPS, TOKENS, observed, plan, planned, tier, values

KINDS: tuple[TierKind, ...] = ("pooled", "raw")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> TierKind:
    found: TierKind = request.param
    return found


def same(store: TierStore, kind: TierKind, slot: int) -> bool:
    tree, expected = open_tier(store.url), values(kind, slot)
    return all(np.array_equal(tree[site][name][slot], x) for site, own in expected.items() for name, x in own.items())


def test_xarray_alone_opens_it(root: str, kind: TierKind) -> None:
    store = observed(root, kind)
    node = store.path.store()
    tree = xr.open_datatree(node, engine="zarr", consolidated=False, chunks={})  # type: ignore[arg-type]
    assert set(tree.children) == {site.name for site in SITES}
    assert tree.attrs["kind"] == kind
    assert tree.attrs["profile"] == PROFILE
    assert tree["step"].values.tolist() == STEPS
    assert tree["timestep"].values.tolist() == [TIMESTEPS[step] for step in STEPS]
    assert tree["text"].values.tolist() == [prompt.text for prompt in PROMPTS]
    assert [tree[site.name].attrs["grid"] for site in SITES] == [[2, 3], None]
    assert [tree[site.name].attrs["tokens"] for site in SITES] == [6, 5]
    for name, expected in values(kind, 2)[SITES[0].name].items():
        found = tree[SITES[0].name][name].sel(prompt=PROMPTS[2].name)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_chunks_are_whole_uncompressed_and_what_the_price_says(root: str, kind: TierKind) -> None:
    store = observed(root, kind)
    files = store.path.files()
    chunks = {name: size for name, size in files.items() if "/c/" in name and name.startswith("unet.")}
    a_site = {"pooled": 3 * 3, "raw": 3 * len(STEPS)}[kind]  # variables x prompts; prompts x steps
    assert len(chunks) == a_site * len(SITES)
    spec = CaptureSpec(steps=3)
    tokens = {site: own.count for site, own in TOKENS.items()}
    assert sum(chunks.values()) == price(tier(kind), SITES, tokens, spec, len(PROMPTS))
    assert drafts(root) == []


def test_the_price_counts_what_is_kept() -> None:
    site = NeuronSite("unet.mid_block.ff.net.2", "ffn", 1280, 320)
    spec, half = CaptureSpec(steps=50), CaptureSpec(steps=50, window=25, guidance=1)
    raw = TierSpec("raw", (site.name,), None)
    assert price(raw, [site], {site.name: 4096}, spec, 40) == 40 * 50 * (2 * 4096 * 1280 * 2 + 4)
    assert price(raw, [site], {site.name: 4096}, half, 40) == 40 * 25 * (4096 * 1280 * 2 + 4)
    assert price(replace(raw, steps="0-4,9"), [site], {site.name: 64}, spec, 1) == 6 * (2 * 64 * 1280 * 2 + 4)
    assert price(TierSpec("pooled", (site.name,)), [site, site], {}, spec, 2) == 2 * 2 * 3 * (50 * 2 * 1280 * 4 + 4)


def test_prompts_are_pending_until_they_are_whole(root: str, kind: TierKind) -> None:
    store = TierStore(root, "profile", "prompt-set", tier(kind))
    assert not store.exists()
    plan(store)
    plan(store)  # a second planner finds it as it is
    assert store.exists()
    assert store.prompts() == [(prompt.text, prompt.seed) for prompt in PROMPTS]
    assert store.steps() == STEPS
    assert store.pending() == [0, 1, 2]
    store.write(1, values(kind, 1))
    assert store.pending() == [0, 2]
    store.write(1, values(kind, 7))  # a prompt that is complete keeps what it has
    assert same(store, kind, 1)
    assert np.isnan(open_tier(store.url)[SITES[0].name][VARIABLES[kind][0].name][0]).all()


def test_a_writer_that_is_cut_off_leaves_its_prompt_pending(
    root: str, kind: TierKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = planned(root, kind)
    put, done = zarr.Array.__setitem__, []

    def mortal(self: Any, key: Any, value: Any) -> None:
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(key)
        put(self, key, value)

    with monkeypatch.context() as dying:
        dying.setattr(zarr.Array, "__setitem__", mortal)
        dying.setattr("storage.parallel.REQUESTS", 1)
        with pytest.raises(KeyboardInterrupt):
            store.write(0, values(kind, 0))
    assert store.pending() == [0, 1, 2]
    store.write(0, values(kind, 0))
    assert store.pending() == [1, 2]
    assert same(store, kind, 0)


def test_writers_race_over_one_store(root: str, kind: TierKind) -> None:
    together = threading.Barrier(len(PROMPTS))

    def work(slot: int) -> None:
        store = TierStore(root, "profile", "prompt-set", tier(kind))
        together.wait()
        plan(store)
        store.write(slot, values(kind, slot))

    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        list(pool.map(work, range(len(PROMPTS))))
    store = TierStore(root, "profile", "prompt-set", tier(kind))
    assert store.pending() == []
    assert all(same(store, kind, slot) for slot in range(len(PROMPTS)))
    assert drafts(root) == []


@pytest.mark.parametrize("damage", [flip, delete])
def test_damage_is_found_and_mended(root: str, damage: Callable[[Place], None]) -> None:
    store = observed(root, "raw")
    damage(store.path / SITES[1].name / "activation" / "c" / "2" / "1" / "0" / "0" / "0")
    x = open_tier(store.url)[SITES[1].name]["activation"]
    with pytest.raises(DamagedStore, match=rf"activation, prompt 2 .{PROMPTS[2].name}., is damaged"):
        x.compute()
    assert np.isfinite(x[:, 0]).all()  # the other step's chunks are sound
    store.reset(2)
    assert store.pending() == [2]
    store.write(2, values("raw", 2))
    assert same(store, "raw", 2)
    damage(store.path / "complete" / "c" / "1")
    with pytest.raises(DamagedStore, match="the marks of completeness is damaged"):
        store.pending()


def changed(kind: TierKind, name: str, value: Any) -> dict[str, dict[str, np.ndarray]]:
    own = values(kind)
    return {**own, SITES[0].name: {**own[SITES[0].name], name: value}}


BIG = values("raw")[SITES[0].name]["activation"].astype("f4")
BIG[1, 0, 3, 2] = -65520  # rounds to infinity; 65519 rounds to 65504


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        ("raw", {SITES[0].name: {}}, f"keeps 2 sites; {SITES[1].name} is missing or was not planned"),
        ("raw", values("raw") | {"unet.more": {}}, "keeps 2 sites; unet.more is missing or was not planned"),
        ("pooled", values("raw"), f"{SITES[0].name}/mean is missing; give every variable"),
        ("pooled", changed("pooled", "mean", np.zeros((2, 2, 6))), r"mean has the shape \(2, 2, 6\), but"),
        ("raw", values("raw", steps=1), r"activation has the shape \(1, 2, 6, 7\), but one prompt is \(2, 2, 6, 7\)"),
        ("raw", changed("raw", "activation", BIG), "at step 2 that is not finite or above 65504, .*--tier"),
        ("raw", changed("raw", "activation", np.full((2, 2, 6, 7), np.nan)), "at step 0 that is not finite"),
        ("pooled", changed("pooled", "absmax", np.full((2, 2, 7), np.inf)), "absmax has a value at step 0 that is"),
    ],
    ids=["fewer sites", "more sites", "variable", "width", "steps", "overflow", "not a number", "infinite"],
)  # fmt: skip
def test_wrong_values_are_refused_before_anything_is_written(
    root: str, kind: TierKind, wrong: Any, message: str
) -> None:
    store = planned(root, kind)
    before = store.path.files()
    with pytest.raises(ValueError, match=message):
        store.write(0, wrong)
    assert store.path.files() == before
    assert store.pending() == [0, 1, 2]


def test_what_fits_float16_is_kept(root: str) -> None:
    store = planned(root, "raw")
    store.write(0, changed("raw", "activation", np.where(BIG < -60000, -65519, BIG)))
    assert open_tier(store.url)[SITES[0].name]["activation"][0].min() == -65504


@pytest.mark.parametrize("slot", [3, -1])
def test_a_slot_that_was_not_planned_is_refused(root: str, slot: int) -> None:
    with pytest.raises(ValueError, match="is not one of the 3 prompts"):
        planned(root, "raw").write(slot, values("raw"))


def test_another_choice_has_another_address(root: str) -> None:
    one = tier("raw", "0-2")
    assert TierStore(root, "p", "s", one).url == TierStore(root, "p", "s", tier("raw", "2, 0,1")).url
    others = [tier("pooled", "0-2"), tier("raw", "0-1"), tier("raw", None), replace(one, sites=one.sites[:1])]
    assert len({TierStore(root, "p", "s", spec).url for spec in (one, *others)}) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": [Prompt("other", 0), *PROMPTS[1:]]}, "was planned with other prompts; delete it"),
        ({"timesteps": [1, 2, 3]}, "other timesteps"),
        ({"branches": BRANCHES[:1]}, "other branches"),
        ({"tokens": {**TOKENS, SITES[0].name: Tokens(6, None)}}, "other sites"),
        ({"attributes": {}}, "other profile"),
        ({"sites": SITES[:1]}, "is for the sites .*; give these, in this order"),
        ({"timesteps": TIMESTEPS[:2]}, "steps 0,2 asks for 2, but there are 2, 0 to 1"),
    ],
)
def test_another_plan_is_refused(root: str, changes: dict[str, Any], message: str) -> None:
    store = planned(root, "raw")
    with pytest.raises(ValueError, match=message):
        plan(store, **changes)
    assert store.pending() == [0, 1, 2]
