"""Tables that only grow."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storage.tables import read, write_rows


def rows(root: Path, name: str = "runs") -> list[dict[str, object]]:
    return sorted(read(root, name).to_pylist(), key=lambda row: row["run"])


def test_rows_are_appended_and_never_changed(tmp_path: Path) -> None:
    write_rows(tmp_path, "runs", [{"run": 1, "at": datetime(2026, 1, 1, tzinfo=UTC)}, {"run": 2, "at": None}])
    [part] = (tmp_path / "tables" / "runs").iterdir()
    before = part.read_bytes()
    write_rows(tmp_path, "runs", [{"run": 3, "judge": "v1"}])
    assert part.read_bytes() == before
    assert [row["run"] for row in rows(tmp_path)] == [1, 2, 3]
    assert rows(tmp_path)[2] == {"run": 3, "at": None, "judge": "v1"}


def test_a_repeated_call_adds_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        write_rows(tmp_path, "runs", [{"run": 1}])
    write_rows(tmp_path, "runs", [])
    assert rows(tmp_path) == [{"run": 1}]


def test_no_table_reads_as_empty(tmp_path: Path) -> None:
    assert read(tmp_path, "runs").num_rows == 0


def test_writers_that_race_lose_no_row(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: write_rows(tmp_path, "runs", [{"run": i}]), range(32)))
    assert [row["run"] for row in rows(tmp_path)] == list(range(32))


def test_a_column_may_be_null_in_one_part_and_wider_in_another(tmp_path: Path) -> None:
    for value in (None, 1, 2.5):
        write_rows(tmp_path, "runs", [{"run": 0, "score": value}])
    assert {row["score"] for row in rows(tmp_path)} == {None, 1.0, 2.5}


def test_damage_and_clashes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows for the table runs mix types"):
        write_rows(tmp_path, "runs", [{"run": 1}, {"run": "one"}])
    write_rows(tmp_path, "runs", [{"run": 1}])
    [part] = (tmp_path / "tables" / "runs").iterdir()
    write_rows(tmp_path, "runs", [{"run": "one"}])
    with pytest.raises(ValueError, match="the parts of the table runs disagree"):
        read(tmp_path, "runs")
    data = bytearray(part.read_bytes())
    data[9] ^= 1
    part.write_bytes(data)
    with pytest.raises(ValueError, match="is damaged .wrong sha256.; delete it"):
        read(tmp_path, "runs")


def test_names_never_leave_the_root(tmp_path: Path) -> None:
    write_rows(tmp_path / "root", "../../up", [{"run": 1}])
    assert rows(tmp_path / "root", "../../up") == [{"run": 1}]
    assert [path.name for path in tmp_path.iterdir()] == ["root"]
