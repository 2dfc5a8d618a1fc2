"""Looking after a store: damage is found and named; only what is asked for is removed or made pending."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from flows.config import MaintenanceRequest
from flows.erase_concept import erase
from flows.maintain import Upkeep, look_after
from flows.plan import make_plan
from flows.steps import Steps
from tests.erase_cases import Case, files
from tests.test_flows_resume import complete

DAY = 24 * 3600  # s


@pytest.fixture(scope="module")
def whole(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one edit, not judged."""
    folder = tmp_path_factory.mktemp("whole") / "store"
    erase(make_plan(case.request(folder, evaluate=False)), Steps())
    return folder


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(whole, tmp_path / "store"))


def look(store: Path, **options: object) -> Upkeep:
    return look_after(MaintenanceRequest(store=str(store), **options), Steps())  # type: ignore[arg-type]


def flip(path: Path) -> None:
    """Change the last bit of a file."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def age(path: Path, seconds: float) -> None:
    """Make a file, or all below a folder, so old."""
    then = time.time() - seconds
    for below in (*path.rglob("*"), path):
        os.utime(below, (then, then))


def test_nothing_changes_in_a_sound_store(store: Path) -> None:
    before = files(store)
    found = look(store, energies="check", rankings_days=1)
    assert found == Upkeep(str(store), 2, {}, {}, [], [])  # the edit and the pointer
    assert found.failure() is None
    assert files(store) == before


@pytest.mark.parametrize("name", ["mask.safetensors", "report.json", "manifest.json"])
def test_a_damaged_edit_is_named_and_left_as_it_is(store: Path, name: str) -> None:
    (path,) = store.glob(f"edits/*/fox/*/{name}")
    flip(path)
    before = files(store)
    found = look(store)
    edit = f"{path.parent.parent.parent.name}/fox/{path.parent.name}"
    assert edit in found.damaged
    assert name in found.damaged[edit]
    assert re.search(f"damaged in .*{name}", str(found.failure()))
    assert files(store) == before


def test_a_pointer_to_another_edit_is_damage(store: Path) -> None:
    (pointer,) = store.glob("edits/*/fox/refs/latest.json")
    flip(pointer)
    (what,) = look(store).damaged
    assert what.endswith("/fox/latest")


def test_energies_are_read_and_reset_only_if_asked(case: Case, store: Path) -> None:
    folder = min(complete(store))
    chunk = next(path for path in sorted(folder.glob("*/energy/c/1/**/*")) if path.is_file())
    flip(chunk)
    assert not look(store).damaged
    checked = look(store, energies="check")
    assert list(checked.damaged) == [str(folder)]
    assert "slots 1 are damaged" in checked.damaged[str(folder)]
    assert len(complete(store)[folder]) == 3

    reset = look(store, energies="reset")
    assert (reset.damaged, reset.reset) == ({}, {str(folder): [1]})
    assert complete(store)[folder] == [0, 2]
    plan = make_plan(case.request(store, t_hat=3, evaluate=False))
    assert plan.missing() == 1
    erase(plan, Steps())
    assert not look(store, energies="check").damaged


def test_a_missing_chunk_is_damage(store: Path) -> None:
    folder = min(complete(store))
    next(path for path in sorted(folder.glob("*/energy/c/2/**/*")) if path.is_file()).unlink()
    assert look(store, energies="reset").reset == {str(folder): [2]}


def test_old_rankings_go_only_if_asked_and_are_made_again(case: Case, store: Path) -> None:
    (ranking,) = store.glob("rankings/*/*.zarr")
    age(ranking, 3 * DAY)
    assert look(store).rankings == []
    assert look(store, rankings_days=4).rankings == []
    assert look(store, rankings_days=2).rankings == [str(ranking)]
    assert not ranking.exists()
    erase(make_plan(case.request(store, t_hat=3, evaluate=False)), Steps())
    assert ranking.exists()


def test_what_killed_writers_left_goes_after_a_day(store: Path) -> None:
    edit = next(store.glob("edits/*/fox/*/manifest.json")).parent
    old = [edit / ".mask.safetensors.0.tmp", next(iter(complete(store))) / "zarr.0.partial"]
    new = edit / ".report.json.1.tmp"
    half = store / "models" / ".model.zarr.2.tmp"
    half.mkdir()
    for path in (*old, new, half / "zarr.json"):
        path.write_bytes(b"half")
    for path in (*old, half):
        age(path, 2 * DAY)
    other = store / "notes.tmp"  # not ours
    other.write_bytes(b"mine")
    age(other, 2 * DAY)
    assert look(store, leftovers=False).leftovers == []
    assert look(store).leftovers == sorted(map(str, (*old, half)))
    assert not any(path.exists() for path in (*old, half))
    assert new.exists()
    assert other.exists()


def test_a_store_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="is a file"):
        look(tmp_path / "file")
    assert look(tmp_path / "new") == Upkeep(str(tmp_path / "new"), 0, {}, {}, [], [])


@pytest.mark.parametrize("options", [{"rankings_days": 0}, {"energies": "delete"}, {"all": True}], ids=str)
def test_its_parameters_are_bounded(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        MaintenanceRequest(**options)  # type: ignore[arg-type]


def maintain(*words: object) -> tuple[int, str, str]:
    """The command: its exit code, stdout and stderr."""
    done = CliRunner().invoke(app, ["maintain", *map(str, words), "--no-prefect"])
    return done.exit_code, done.stdout, done.stderr


def test_the_command_says_what_is_sound_damaged_and_done(store: Path) -> None:
    assert maintain("--store", store)[:2] == (0, f"2 edits and pointers of {store} verified, 0 damaged\n")
    mask = next(store.glob("edits/*/fox/*/mask.safetensors"))
    flip(mask)
    code, said, _ = maintain("--store", store)
    assert code == 1
    assert re.search(r"verified, 1 damaged\ndamaged  mask.safetensors of .*wrong sha256.*delete that folder", said)
    code, said, _ = maintain("--store", store, "--json")
    assert (code, list(json.loads(said)["damaged"])) == (1, [str(mask.parent.relative_to(store / "edits"))])


def test_the_command_resets_damaged_energies_for_the_next_run(store: Path) -> None:
    chunk = next(store.glob("activations/*/*.zarr/*/energy/c/1/0/0/0"))
    flip(chunk)
    code, said, _ = maintain("--store", store, "--energies", "check")
    assert (code, "the energies of slots 1 are damaged" in said) == (1, True)
    code, said, _ = maintain("--store", store, "--energies", "reset")
    assert (code, "pending  slots 1 of" in said) == (0, True)


def test_the_command_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    code, said, why = maintain("--store", tmp_path, "--energies", "delete")
    assert (code, said) == (2, "")
    assert why == "conceptprune: energies is 'delete': Input should be 'skip', 'check' or 'reset'; see --help\n"
