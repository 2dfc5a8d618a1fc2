"""Tables that only grow."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import pyarrow
import pyarrow.parquet
import pytest

from storage.places import Place
from storage.roots import Root
from storage.tables import columns_of, read, write_rows
from tests.storage_cases import content, flip


def parts(root: str) -> list[Place]:
    folder = Root(root).path("tables", "runs")
    return [folder / name for name in folder.files()]


def rows(root: str, name: str = "runs") -> list[dict[str, object]]:
    return sorted(read(root, name).to_pylist(), key=lambda row: row["run"])


def test_rows_are_appended_and_never_changed(root: str) -> None:
    write_rows(root, "runs", [{"run": 1, "at": datetime(2026, 1, 1, tzinfo=UTC)}, {"run": 2, "at": None}])
    [part] = parts(root)
    before = content(part)
    write_rows(root, "runs", [{"run": 3, "judge": "v1"}])
    assert content(part) == before
    assert [row["run"] for row in rows(root)] == [1, 2, 3]
    assert rows(root)[2] == {"run": 3, "at": None, "judge": "v1"}


def test_a_repeated_call_adds_nothing(root: str) -> None:
    for _ in range(2):
        write_rows(root, "runs", [{"run": 1}])
    write_rows(root, "runs", [])
    assert rows(root) == [{"run": 1}]


def test_no_table_reads_as_empty(root: str) -> None:
    assert read(root, "runs").num_rows == 0


def test_writers_that_race_lose_no_row(root: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: write_rows(root, "runs", [{"run": i}]), range(32)))
    assert [row["run"] for row in rows(root)] == list(range(32))


@dataclass(frozen=True)
class Row:
    run: int
    score: float | None
    at: datetime | None = None


def test_a_column_that_holds_nothing_has_its_type_in_every_part(root: str) -> None:
    for value in (None, 1, 2.5):
        write_rows(root, "runs", [asdict(Row(0, value))], columns_of(Row))
    assert {row["score"] for row in rows(root)} == {None, 1.0, 2.5}
    schemas = [pyarrow.parquet.read_schema(io.BytesIO(part.get() or b"")) for part in parts(root)]
    assert len({schema.remove_metadata().to_string() for schema in schemas}) == 1
    assert read(root, "runs").schema.field("at").type == pyarrow.timestamp("us", "UTC")
    with pytest.raises(ValueError, match="rows for the table runs have no value in score; give the columns' types"):
        write_rows(root, "runs", [{"run": 1, "score": None}])


def test_damage_and_clashes_are_refused(root: str) -> None:
    with pytest.raises(ValueError, match="rows for the table runs mix types"):
        write_rows(root, "runs", [{"run": 1}, {"run": "one"}])
    write_rows(root, "runs", [{"run": 1}])
    [part] = parts(root)
    write_rows(root, "runs", [{"run": "one"}])
    with pytest.raises(ValueError, match="the parts of the table runs disagree"):
        read(root, "runs")
    flip(part, 9)
    with pytest.raises(ValueError, match="is damaged .wrong sha256.; delete it"):
        read(root, "runs")


def test_names_never_leave_the_root(root: str) -> None:
    write_rows(root, "../../up", [{"run": 1}])
    assert rows(root, "../../up") == [{"run": 1}]
    assert Root(root).path("tables").folders() == ["%2E.%2F..%2Fup"]
