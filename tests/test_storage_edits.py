"""Edits: published whole, verified when read, pointed to."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage import edits
from storage.edits import (
    CorruptEdit,
    Edit,
    encode_deltas,
    encode_masks,
    latest,
    list_edits,
    point,
    read_edit,
    read_edit_at,
    write_edit,
)

ID, ID2 = "0123456789abcdef", "fedcba9876543210"
SITE = "unet.mid.ff.net.2"
MASKS = {SITE: np.random.default_rng(0).random((4, 11)) < 0.3, "unet.a.ff.net.2": np.zeros((2, 8), bool)}
WEIGHT = np.arange(44, dtype="f4").reshape(4, 11) - 20
FILES: dict[str, bytes | Path] = {
    "mask.safetensors": encode_masks(MASKS, ID),
    "delta.safetensors": encode_deltas({SITE: WEIGHT}, "bfloat16", ID),
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


def publish(root: Path, **fields: Any) -> Edit:
    return write_edit(root, "demo", "fox", FILES, {**FIELDS, **fields})


def test_an_edit_comes_back(tmp_path: Path) -> None:
    edit = publish(tmp_path, created="2026-01-01T00:00:00+00:00")
    assert edit.path == tmp_path / "edits" / "demo" / "fox" / ID
    assert (edit.id, edit.concept) == (ID, "fox")
    for found in (read_edit(tmp_path, "demo", "fox", ID), read_edit_at(edit.path)):
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


def test_paths_may_be_given_for_files(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(b"from a file")
    edit = write_edit(tmp_path, "demo", "fox", {"images/a.png": tmp_path / "picture"}, FIELDS)
    assert edit.read("images/a.png") == b"from a file"


def test_fault_8_nothing_is_pickled(tmp_path: Path) -> None:
    edit = publish(tmp_path)
    assert {path.suffix for path in edit.path.rglob("*") if path.is_file()} == {".safetensors", ".json", ".png"}
    sources = Path(edits.__file__).parent.glob("*.py")
    assert not [path for path in sources if "pickle" in path.read_text("utf-8")]


def test_without_a_manifest_there_is_no_edit(tmp_path: Path) -> None:
    edit = publish(tmp_path)
    (edit.path / "manifest.json").unlink()
    with pytest.raises(CorruptEdit, match=r"has no manifest.json, so it is not an edit; run"):
        read_edit(tmp_path, "demo", "fox", ID)
    with pytest.raises(CorruptEdit, match="is not an edit"):
        point(tmp_path, "demo", "fox", ID)
    assert list_edits(tmp_path) == []
    publish(tmp_path).verify()  # a rerun finishes what was cut off


@pytest.mark.parametrize("name", list(FILES))
def test_a_wrong_sha_is_corrupt(tmp_path: Path, name: str) -> None:
    edit = publish(tmp_path)
    data = bytearray((edit.path / name).read_bytes())
    data[-1] ^= 1
    (edit.path / name).write_bytes(data)
    for read in (lambda: edit.read(name), edit.verify):
        with pytest.raises(CorruptEdit, match=f"{name} of .* is not what the manifest says .wrong sha256.; delete"):
            read()
    (edit.path / name).unlink()
    with pytest.raises(CorruptEdit, match=f"{name} of .* is missing"):
        edit.verify()


def test_a_damaged_manifest_is_corrupt(tmp_path: Path) -> None:
    path = publish(tmp_path).path / "manifest.json"
    sound = path.read_bytes()
    manifest = json.loads(sound)
    stranger = {**manifest, "files": {"../../../../secret": {"sha256": "0" * 64, "size": 1}}}
    for wrong in (
        b"",
        sound[:-1],
        b"[]",
        sound + b" ",
        edits.canonical_json({**manifest, "format": "other"}),
        edits.canonical_json(stranger),
        edits.canonical_json({name: value for name, value in manifest.items() if name != "prune"}),
        edits.canonical_json({**manifest, "edit": ID2}),
        edits.canonical_json({**manifest, "concept": "cat"}),
    ):
        path.write_bytes(wrong)
        with pytest.raises(CorruptEdit, match="delete that folder"):
            read_edit(tmp_path, "demo", "fox", ID)


def test_latest_notices_a_manifest_that_was_changed(tmp_path: Path) -> None:
    path = publish(tmp_path).path / "manifest.json"
    point(tmp_path, "demo", "fox", ID)
    path.write_bytes(path.read_bytes().replace(b'"t_hat":10', b'"t_hat":11'))
    with pytest.raises(CorruptEdit, match="holds another edit"):
        read_edit(tmp_path, "demo", "fox")


def test_publishing_again_changes_nothing(tmp_path: Path) -> None:
    first = publish(tmp_path, created="2026-01-01T00:00:00+00:00")
    again = write_edit(tmp_path, "demo", "fox", {**FILES, "report.json": b'{"seconds":2}'}, FIELDS)
    assert again == first
    again.verify()


def test_publishers_that_race_publish_one_edit(tmp_path: Path) -> None:
    def race(i: int) -> Edit:
        return write_edit(tmp_path, "demo", "fox", {**FILES, "report.json": b"%d" % i}, FIELDS)

    with ThreadPoolExecutor(8) as pool:
        published = list(pool.map(race, range(16)))
    assert len({edit.digest for edit in published}) == 1
    published[0].verify()


def test_an_unfinished_edit_with_another_mask_is_refused(tmp_path: Path) -> None:
    folder = publish(tmp_path).path
    (folder / "manifest.json").unlink()
    (folder / "mask.safetensors").write_bytes(b"left by a run that was cut off")
    with pytest.raises(ValueError, match=r"holds another mask.safetensors, .* delete that folder"):
        publish(tmp_path)
    shutil.rmtree(folder)
    publish(tmp_path).verify()


def test_bad_input_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for edit in ("refs", "latest", "..", "../x", "ABCDEF0123", ""):
        with pytest.raises(ValueError, match="is not a digest"):
            publish(tmp_path, edit=edit)
    for name in ("../x", "/etc/x", "a//b", "a/./b", "manifest.json", ".hidden", "é", ""):
        with pytest.raises(ValueError, match="cannot name a file"):
            write_edit(tmp_path, "demo", "fox", {name: b""}, FIELDS)
    with pytest.raises(ValueError, match="the manifest lacks profile, prune;"):
        write_edit(tmp_path, "demo", "fox", {}, {k: v for k, v in FIELDS.items() if k not in ("profile", "prune")})
    assert list(tmp_path.iterdir()) == []


def test_names_never_leave_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    names = [("a/b", "../../.."), ("..", "refs"), ("é", "van gogh")]
    for model, concept in names:
        edit = write_edit(root, model, concept, FILES, FIELDS)
        point(root, model, concept, ID)
        assert edit.path.parents[3] == root
        assert edit.path.parents[0].parts == root.joinpath(*edit.path.parts[-4:-1]).parts
        assert read_edit(root, model, concept).concept == concept
        assert [found.path for found in list_edits(root, model, concept)] == [edit.path]
    assert len(list_edits(root)) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_the_pointer_moves(tmp_path: Path) -> None:
    assert latest(tmp_path, "demo", "fox") is None
    with pytest.raises(ValueError, match="there is no edit of fox for the model demo in .*; erase it first"):
        read_edit(tmp_path, "demo", "fox")
    publish(tmp_path, created="2026-01-02T00:00:00+00:00")
    publish(tmp_path, created="2026-01-01T00:00:00+00:00", edit=ID2)
    for edit in (ID, ID2, ID2, ID):
        point(tmp_path, "demo", "fox", edit)
        assert latest(tmp_path, "demo", "fox") == read_edit(tmp_path, "demo", "fox").id == edit
    pointer = tmp_path / "edits" / "demo" / "fox" / "refs" / "latest.json"
    assert json.loads(pointer.read_bytes()) | {"sequence": 3, "previous": ID2} == json.loads(pointer.read_bytes())
    assert [edit.id for edit in list_edits(tmp_path)] == [ID2, ID]  # by age
    assert list_edits(tmp_path, concept="cat") == []
    pointer.write_bytes(pointer.read_bytes()[:-1])
    with pytest.raises(ValueError, match="latest.json is damaged; delete it"):
        latest(tmp_path, "demo", "fox")


def test_pointers_that_race_lose_no_move(tmp_path: Path) -> None:
    ids = [f"{i:016x}" for i in range(8)]
    for edit in ids:
        publish(tmp_path, edit=edit)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda edit: point(tmp_path, "demo", "fox", edit), ids))
    pointer = json.loads((tmp_path / "edits" / "demo" / "fox" / "refs" / "latest.json").read_bytes())
    assert pointer["sequence"] == 8
    assert {pointer["edit"], pointer["previous"]} < set(ids)
