"""Edits: published whole, verified when read, pointed to."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage import edits
from storage.edits import (
    CorruptEdit,
    Edit,
    latest,
    point,
    read_edit,
    read_edit_at,
    write_edit,
)
from storage.listing import latest_edit, list_edits
from storage.masks import encode_masks, write_deltas
from storage.names import canonical_json
from storage.roots import Root
from tests.storage_cases import content, delete, flip

ID, ID2 = "0123456789abcdef", "fedcba9876543210"
SITE = "unet.mid.ff.net.2"
MASKS = {SITE: np.random.default_rng(0).random((4, 11)) < 0.3, "unet.a.ff.net.2": np.zeros((2, 8), bool)}
WEIGHT = np.arange(44, dtype="f4").reshape(4, 11) - 20
DELTAS = io.BytesIO()
write_deltas(DELTAS, {SITE: WEIGHT.shape}, lambda site: WEIGHT, "bfloat16", ID)
FILES: dict[str, bytes | Path] = {
    "mask.safetensors": encode_masks(MASKS, ID),
    "delta.safetensors": DELTAS.getvalue(),
    "report.json": b"{}",
    "images/after-0.png": b"png",
}
FIELDS = {
    "edit": ID,
    "model": {"id": "demo", "revision": None, "fingerprint": "f" * 64},
    "profile": "p",
    "prune": {"sparsity": "0.05", "t_hat": 10, "vote_share": 0.0, "branch": "both", "kinds": ["ffn"]},
    "prompt_sets": {"reference": "r", "target": "t"},
    "versions": {"numpy": "2"},
}


def publish(root: str, **fields: Any) -> Edit:
    return write_edit(root, "demo", "fox", FILES, {**FIELDS, **fields})


def test_an_edit_comes_back(root: str) -> None:
    edit = publish(root, created="2026-01-01T00:00:00+00:00")
    assert edit.path.url == f"{Root(root).url}/edits/demo/fox/{ID}"
    assert (edit.id, edit.concept) == (ID, "fox")
    for found in (read_edit(root, "demo", "fox", ID), read_edit_at(edit.path.url)):
        found.verify()
        assert found.manifest == edit.manifest
        assert found.read("images/after-0.png") == b"png"
        assert found.manifest["prune"] == FIELDS["prune"]
        masks = found.masks()
        assert masks.keys() == MASKS.keys()
        for site, mask in MASKS.items():
            np.testing.assert_array_equal(masks[site], mask)
        np.testing.assert_array_equal(found.deltas()[f"{SITE}.weight"], WEIGHT)
    with pytest.raises(ValueError, match="has no file x.png; it has delta.safetensors, images/after-0.png"):
        edit.read("x.png")


def test_paths_may_be_given_for_files(root: str, tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(b"from a file")
    edit = write_edit(root, "demo", "fox", {"images/a.png": tmp_path / "picture"}, FIELDS)
    assert edit.read("images/a.png") == b"from a file"


def test_fault_8_nothing_is_pickled(root: str) -> None:
    edit = publish(root)
    assert {name.rpartition(".")[2] for name in edit.path.files()} == {"safetensors", "json", "png"}
    sources = Path(edits.__file__).parent.glob("*.py")
    assert not [path for path in sources if "pickle" in path.read_text("utf-8")]


def test_without_a_manifest_there_is_no_edit(root: str) -> None:
    edit = publish(root)
    delete(edit.path / "manifest.json")
    with pytest.raises(CorruptEdit, match=r"has no manifest.json, so it is not an edit; run"):
        read_edit(root, "demo", "fox", ID)
    with pytest.raises(CorruptEdit, match="is not an edit"):
        point(root, "demo", "fox", ID)
    assert list_edits(root) == []
    publish(root).verify()  # a rerun finishes what was cut off


def test_a_wrong_sha_is_corrupt(root: str) -> None:
    edit = publish(root)
    for name in FILES:
        file = edit.path / name
        sound = content(file)
        flip(file, -1)
        for read in (lambda name=name: edit.read(name), edit.verify):
            with pytest.raises(CorruptEdit, match=f"{name} of .* is not what the manifest says .wrong sha256.; delete"):
                read()
        delete(file)
        with pytest.raises(CorruptEdit, match=f"{name} of .* is missing"):
            edit.verify()
        file.put(sound)
    edit.verify()


def test_a_damaged_manifest_is_corrupt(root: str) -> None:
    path = publish(root).path / "manifest.json"
    sound = content(path)
    manifest = json.loads(sound)
    stranger = {**manifest, "files": {"../../../../secret": {"sha256": "0" * 64, "size": 1}}}
    for wrong in (
        b"",
        sound[:-1],
        b"[]",
        sound + b" ",
        canonical_json({**manifest, "format": "other"}),
        canonical_json(stranger),
        canonical_json({name: value for name, value in manifest.items() if name != "prune"}),
        canonical_json({**manifest, "edit": ID2}),
        canonical_json({**manifest, "concept": "cat"}),
    ):
        path.put(wrong)
        with pytest.raises(CorruptEdit, match="delete that folder"):
            read_edit(root, "demo", "fox", ID)


def test_latest_notices_a_manifest_that_was_changed(root: str) -> None:
    path = publish(root).path / "manifest.json"
    point(root, "demo", "fox", ID)
    path.put(content(path).replace(b'"t_hat":10', b'"t_hat":11'))
    with pytest.raises(CorruptEdit, match="holds another edit"):
        read_edit(root, "demo", "fox")


def test_publishing_again_changes_nothing(root: str) -> None:
    first = publish(root, created="2026-01-01T00:00:00+00:00")
    again = write_edit(root, "demo", "fox", {**FILES, "report.json": b'{"seconds":2}'}, FIELDS)
    assert again == first
    again.verify()


def test_publishers_that_race_publish_one_edit(root: str) -> None:
    def race(i: int) -> Edit:
        return write_edit(root, "demo", "fox", {**FILES, "report.json": b"%d" % i}, FIELDS)

    with ThreadPoolExecutor(8) as pool:
        published = list(pool.map(race, range(16)))
    assert len({edit.digest for edit in published}) == 1
    published[0].verify()


def test_an_unfinished_edit_with_another_mask_is_refused(root: str) -> None:
    folder = publish(root).path
    delete(folder / "manifest.json")
    (folder / "mask.safetensors").put(b"left by a run that was cut off")
    with pytest.raises(ValueError, match=r"holds another mask.safetensors, .* delete that folder"):
        publish(root)
    folder.delete()
    publish(root).verify()


def test_bad_input_is_refused_before_anything_is_written(root: str) -> None:
    for edit in ("refs", "latest", "..", "../x", "ABCDEF0123", ""):
        with pytest.raises(ValueError, match="is not a digest"):
            publish(root, edit=edit)
    for name in ("../x", "/etc/x", "a//b", "a/./b", "manifest.json", ".hidden", "é", ""):
        with pytest.raises(ValueError, match="cannot name a file"):
            write_edit(root, "demo", "fox", {name: b""}, FIELDS)
    with pytest.raises(ValueError, match="the manifest lacks profile, prune;"):
        write_edit(root, "demo", "fox", {}, {k: v for k, v in FIELDS.items() if k not in ("profile", "prune")})
    assert Root(root).path("edits").files() == {}


def test_names_never_leave_the_root(root: str) -> None:
    names = [("a/b", "../../.."), ("..", "refs"), ("é", "van gogh")]
    for model, concept in names:
        edit = write_edit(root, model, concept, FILES, FIELDS)
        point(root, model, concept, ID)
        assert edit.path.parent.parent.parent.url == f"{Root(root).url}/edits"
        assert read_edit(root, model, concept).concept == concept
        assert [found.path for found in list_edits(root, model, concept)] == [edit.path]
        assert latest_edit(root, concept) == edit
    assert len(list_edits(root)) == 3


def test_the_newest_models_pointer_counts(root: str) -> None:
    assert latest_edit(root, "fox") is None
    for model, edit, day in (("a", ID, 2), ("b", ID, 3), ("a", ID2, 4)):
        fields = {**FIELDS, "edit": edit, "created": f"2026-01-0{day}T00:00:00+00:00"}
        write_edit(root, model, "fox", FILES, fields)
    assert latest_edit(root, "fox") == read_edit(root, "a", "fox", ID2)  # no run came as far as its pointer
    point(root, "a", "fox", ID)
    assert latest_edit(root, "fox") == read_edit(root, "a", "fox", ID)
    point(root, "b", "fox", ID)
    assert latest_edit(root, "fox") == read_edit(root, "b", "fox", ID)


def test_the_pointer_moves(root: str) -> None:
    assert latest(root, "demo", "fox") is None
    with pytest.raises(ValueError, match="there is no edit of fox for the model demo in .*; erase it first"):
        read_edit(root, "demo", "fox")
    publish(root, created="2026-01-02T00:00:00+00:00")
    publish(root, created="2026-01-01T00:00:00+00:00", edit=ID2)
    for edit in (ID, ID2, ID2, ID):
        point(root, "demo", "fox", edit)
        assert latest(root, "demo", "fox") == read_edit(root, "demo", "fox").id == edit
    pointer = Root(root).path("edits", "demo", "fox", "refs", "latest.json")
    said = json.loads(content(pointer))
    assert said | {"sequence": 3, "previous": ID2} == said
    assert [edit.id for edit in list_edits(root)] == [ID2, ID]  # by age
    assert list_edits(root, concept="cat") == []
    pointer.put(content(pointer)[:-1])
    with pytest.raises(ValueError, match="latest.json is damaged; delete it"):
        latest(root, "demo", "fox")


def test_pointers_that_race_lose_no_move(root: str) -> None:
    ids = [f"{i:016x}" for i in range(6)]
    for edit in ids:
        publish(root, edit=edit)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda edit: point(root, "demo", "fox", edit), ids))
    pointer = json.loads(content(Root(root).path("edits", "demo", "fox", "refs", "latest.json")))
    assert pointer["sequence"] == 6
    assert {pointer["edit"], pointer["previous"]} < set(ids)
