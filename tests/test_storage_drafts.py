"""Edits in the making: files first, the manifest last, and nothing that is there is replaced."""

from __future__ import annotations

import json

import numpy as np
import pytest

from storage.drafts import EditDraft
from storage.edits import CorruptEdit, Edit, latest, read_edit
from tests.storage_cases import content, delete, drafts, interrupt_write

ID = "0123456789abcdef"
SITE = "unet.mid.ff.net.2"
MASKS = {SITE: np.random.default_rng(0).random((4, 11)) < 0.3}
WEIGHTS = {SITE: np.arange(44, dtype="f4").reshape(4, 11) * ~MASKS[SITE]}
MANIFEST = {
    "model": {"id": "demo"},
    "profile": "p",
    "prune": {"sparsity": "0.3"},
    "prompt_sets": {"reference": "r", "target": "t"},
    "versions": {},
}


@pytest.fixture
def draft(root: str) -> EditDraft:
    return EditDraft(root, "demo", "fox", ID)


def put_deltas(draft: EditDraft, weights: dict[str, np.ndarray]) -> None:
    shapes = {site: (weight.shape[0], weight.shape[1]) for site, weight in weights.items()}
    draft.put_deltas(shapes, lambda site: weights[site], "float32")


def fill(draft: EditDraft) -> Edit:
    draft.put_masks(MASKS)
    put_deltas(draft, WEIGHTS)
    draft.put("images/a.png", b"png")
    draft.put_json("report.json", {"sites": {}})
    return draft.seal(MANIFEST)


def test_a_draft_becomes_an_edit(draft: EditDraft) -> None:
    assert draft.sealed() is None
    edit = fill(draft)
    assert set(edit.manifest["files"]) == {"mask.safetensors", "delta.safetensors", "images/a.png", "report.json"}
    assert edit.id == ID
    np.testing.assert_array_equal(edit.masks()[SITE], MASKS[SITE])
    np.testing.assert_array_equal(edit.deltas()[f"{SITE}.weight"], WEIGHTS[SITE])
    assert read_edit(draft.root, "demo", "fox", ID).manifest == edit.manifest


def test_nothing_points_to_a_draft(draft: EditDraft) -> None:
    draft.put_masks(MASKS)
    assert draft.sealed() is None
    assert latest(draft.root, "demo", "fox") is None
    with pytest.raises(CorruptEdit, match=r"no manifest.json, so it is not an edit"):
        read_edit(draft.root, "demo", "fox", ID)


def test_a_sealed_edit_is_verified_and_becomes_the_latest(draft: EditDraft) -> None:
    fill(draft)
    assert latest(draft.root, "demo", "fox") is None
    edit = draft.sealed()
    assert edit is not None
    assert latest(draft.root, "demo", "fox") == edit.id == ID


@pytest.mark.parametrize("gone", [False, True])
def test_a_damaged_edit_never_becomes_the_latest(draft: EditDraft, gone: bool) -> None:
    edit = fill(draft)
    for name in ("mask.safetensors", "delta.safetensors", "images/a.png", "report.json"):
        file = edit.path / name
        sound = content(file)
        delete(file) if gone else file.put(sound[:-1] + b"?")
        with pytest.raises(CorruptEdit, match=name):
            draft.sealed()
        file.put(sound)
    assert latest(draft.root, "demo", "fox") is None


def test_the_same_file_may_be_put_again(draft: EditDraft) -> None:
    for _ in range(2):
        draft.put_masks(MASKS)
        put_deltas(draft, WEIGHTS)
    assert fill(draft).masks()[SITE].shape == (4, 11)


def test_the_first_image_and_report_stay(draft: EditDraft) -> None:
    """Another run's are as good: the address covers all that decides them, but not the seconds that it took."""
    draft.put_json("report.json", {"seconds": 1})
    draft.put_json("report.json", {"seconds": 2})
    assert draft.get("report.json") == b'{"seconds":1}'


def test_another_mask_or_delta_at_one_address_is_refused(draft: EditDraft) -> None:
    draft.put_masks(MASKS)
    put_deltas(draft, WEIGHTS)
    with pytest.raises(ValueError, match="holds another mask.safetensors, of an older run; delete that folder"):
        draft.put_masks({SITE: ~MASKS[SITE]})
    with pytest.raises(ValueError, match="holds another delta.safetensors"):
        put_deltas(draft, {SITE: WEIGHTS[SITE] + 1})
    np.testing.assert_array_equal(draft.masks()[SITE], MASKS[SITE])


def test_a_name_that_could_lead_elsewhere_is_refused(draft: EditDraft) -> None:
    for name in ("manifest.json", "../x", "/x", "a//b", "", ".x", "images/../x", "a b"):
        with pytest.raises(ValueError, match="cannot name a file of an edit"):
            draft.put(name, b"")
    assert draft.folder.files() == {}


def test_masks_before_the_mask_is_made_are_refused(draft: EditDraft) -> None:
    with pytest.raises(ValueError, match="has no mask.safetensors yet; make the mask first"):
        draft.masks()
    assert draft.get("mask.safetensors") is None


def test_an_address_that_is_no_digest_is_refused(root: str) -> None:
    with pytest.raises(ValueError, match="'refs' is not a digest"):
        EditDraft(root, "demo", "fox", "refs").put("report.json", b"{}")


def test_sizes_count_what_is_there(draft: EditDraft) -> None:
    assert draft.sizes() == {"mask": 0, "delta": 0, "images": 0}
    edit = fill(draft)
    sizes = draft.sizes()
    assert sizes["images"] == 3
    assert sizes["mask"] == edit.manifest["files"]["mask.safetensors"]["size"]
    assert sizes["delta"] == edit.manifest["files"]["delta.safetensors"]["size"]


def test_what_an_interrupted_write_left_is_no_file_of_the_edit(root: str, draft: EditDraft) -> None:
    draft.put_masks(MASKS)
    interrupt_write(draft.folder / "delta.safetensors")
    assert len(drafts(root)) == 1
    edit = draft.seal(MANIFEST)
    assert list(json.loads(content(edit.path / "manifest.json"))["files"]) == ["mask.safetensors"]
