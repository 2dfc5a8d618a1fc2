"""Tables of concepts, CSV or Parquet: rows as plain values, each with the number that a person finds it by."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.concepts.catalog_file import Entry
from tasks.concepts.problems import Place, Problems, closest, hint

COLUMNS = tuple(Entry.model_fields)
REQUIRED = ("slug", "kind")
LISTS = ("reference", "target", "seeds")
SUFFIXES = (".csv", ".parquet")
MAX_ROWS = 100_000  # a small Parquet file can claim any number

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._ -]*")  # a name that means the same in a folder and in an address


def suffix_of(name: str) -> str:
    """The suffix of a path or URL, in lower case, without a query.

    >>> suffix_of("https://host/a.b/Concepts.CSV?v=2"), suffix_of("./catalog")
    ('.csv', '')
    """
    last = re.split(r"[/\\]", name.partition("?")[0])[-1]
    return "." + last.rpartition(".")[2].lower() if "." in last else ""


def is_table_name(name: object) -> bool:
    """Whether a catalog may name this file as its table: CSV or Parquet, beside it or below, whatever it is joined to.

    >>> [is_table_name(n) for n in ("a.csv", "sub/a.parquet", "../a.csv", "/a.csv", "http://b/a.csv", "a.toml")]
    [True, True, False, False, False, False]
    """
    return (
        isinstance(name, str)
        and all(_PLAIN.fullmatch(part) for part in name.split("/"))
        and suffix_of(name) in SUFFIXES
    )


@dataclass(frozen=True)
class Table:
    """A table's bytes and how messages speak of it."""

    data: bytes
    suffix: str  # ".csv", ".parquet"
    file: int = 0  # see Place
    name: str = ""  # before "row 7" in messages, where it is not the catalog itself

    def row(self, number: int) -> Place:
        """The place of a row."""
        return Place(self.file, number, f"{self.name} row {number}".strip())

    @property
    def whole(self) -> Place:
        """The place of what concerns no row."""
        return Place(self.file, 0, self.name)


Row = tuple[Place, dict[str, Any]]


def read_table(table: Table, problems: Problems) -> list[Row]:
    """The rows, with a value for each column that is not empty there; what cannot be read is noted.

    A column whose name is misspelt is noted, and read as the one that was meant.
    """
    if not table.data.strip(b"\xef\xbb\xbf \r\n\t"):
        problems.add(table.whole, "the file is empty; give a header and a row for each concept")
        return []
    before = len(problems)
    rows = list((_parquet if table.suffix == ".parquet" else _csv)(table, problems))
    if not rows and len(problems) == before:
        problems.add(table.whole, "there is no concept; add a row")
    return rows


def _csv(table: Table, problems: Problems) -> Iterator[Row]:
    try:
        text = table.data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = table.data.count(b"\n", 0, error.start) + 1
        problems.add(table.row(line), "this is not UTF-8 text; save the file as CSV UTF-8")
        return
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    columns: Sequence[str | None] | None = None
    last = 0  # the line that the row before ended on
    try:
        for cells in reader:
            place, last = table.row(last + 1), reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = _columns([cell.strip() for cell in cells], place, problems)
                if columns is None:
                    return
            elif len(cells) != len(columns):
                count = f"there are {len(cells)} cells under {len(columns)} columns"
                problems.add(place, f"{count}; quote those with commas")
            else:
                yield place, dict(_csv_values(columns, cells, place, problems))
    except csv.Error as error:
        problems.add(table.row(last + 1), f"this is not CSV: {error}")


def _csv_values(
    columns: Sequence[str | None], cells: list[str], place: Place, problems: Problems
) -> Iterator[tuple[str, Any]]:
    for column, cell in zip(columns, cells, strict=True):
        if column is None or not cell.strip():
            continue
        if column not in LISTS:
            yield column, cell.strip()
            continue
        try:
            yield column, json.loads(cell)
        except (ValueError, RecursionError):
            problems.add(place, f'{column} is no JSON list; write it as ["a hill", "a house"]')
            yield column, Unreadable


class Unreadable:
    """Stands where a cell's problem has been noted already."""


def _parquet(table: Table, problems: Problems) -> Iterator[Row]:
    import pyarrow as pa  # here: it takes longer to import than all the rest
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(table.data))
        if file.metadata.num_rows > MAX_ROWS:
            problems.add(table.whole, f"there are {file.metadata.num_rows} rows; {MAX_ROWS} are the most")
            return
        columns = _columns(list(file.schema_arrow.names), table.whole, problems)
        if columns is None:
            return
        number = 0
        for batch in file.iter_batches(batch_size=1000):
            values = {name: batch.column(i).to_pylist() for i, name in enumerate(columns) if name is not None}
            for cells in zip(*values.values(), strict=True):
                number += 1
                row = {name: cell for name, cell in zip(values, cells, strict=True) if not _absent(cell)}
                yield table.row(number), row
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        first = str(error).strip().partition("\n")[0]
        problems.add(table.whole, f"this is not Parquet that can be read: {first[:200]}")


def _absent(cell: Any) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def _columns(names: list[str], place: Place, problems: Problems) -> list[str | None] | None:
    """What each column is: one of COLUMNS, or None to leave it out; None as a whole when rows make no sense."""
    if len(names) == 1 and (other := next((mark for mark in ";\t|" if mark in names[0]), None)):
        problems.add(place, f"columns are separated by {other!r}; separate them by commas")
        return None
    out: list[str | None] = []
    for name in names:
        meant = name if name in COLUMNS else closest(name, COLUMNS)
        if name in COLUMNS and name in out:
            problems.add(place, f"column {name} is there twice; keep one")
            meant = None
        elif name not in COLUMNS:
            problems.add(place, f"column {name[:40]!r} is unknown; {hint(name, COLUMNS)}")
            meant = None if meant in names else meant
        out.append(None if meant in out else meant)
    if missing := [name for name in REQUIRED if name not in out]:
        problems.add(place, f"there is no column {' and no column '.join(missing)}; columns are {', '.join(COLUMNS)}")
        return None
    return out
