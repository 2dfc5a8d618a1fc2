"""Tables that only grow: tables/<name>/part-<digest>.parquet, one part a call, named by its own sha256.

Parts are never changed, so any number of writers may append at once; a call that is repeated with the same rows, in the
same order, adds nothing.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, get_args, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from storage.names import sha256
from storage.roots import Root, RootLike

TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), datetime: pa.timestamp("us", "UTC")}


def columns_of(row: type) -> dict[str, pa.DataType]:
    """The column types of a dataclass's fields that are str, int, float, bool or datetime, or one of these or None."""
    hints = {name: get_args(hint) or (hint,) for name, hint in get_type_hints(row).items()}
    return {name: TYPES[kinds[0]] for name, (*kinds,) in hints.items() if kinds[0] in TYPES}


def write_rows(
    root: RootLike, name: str, rows: Sequence[Mapping[str, Any]], types: Mapping[str, pa.DataType] | None = None
) -> None:
    """Appends rows, {column: value}, to a table; all of them or none. No rows add nothing.

    `types` are those of columns that may hold nothing: other readers want every part to have the same types. Raises
    ValueError if a column mixes types, or holds nothing and has none.
    """
    if not rows:
        return
    columns = sorted({column for row in rows for column in row})
    try:
        table = pa.table({
            column: pa.array([row.get(column) for row in rows], (types or {}).get(column)) for column in columns
        })  # fmt: skip
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"rows for the table {name} mix types in a column: {error}") from error
    if empty := [field.name for field in table.schema if pa.types.is_null(field.type)]:
        raise ValueError(f"rows for the table {name} have no value in {', '.join(empty)}; give the columns' types")
    buffer = io.BytesIO()
    pq.write_table(table, buffer, write_page_checksum=True)
    data = buffer.getvalue()
    Root(root).path("tables", name, f"part-{sha256(data)[:32]}.parquet").put_new(data)


def values(root: RootLike, name: str, column: str) -> set[Any]:
    """The different values of a column; none if there is no such table or column."""
    table = read(root, name)
    return set(table[column].to_pylist()) if column in table.column_names else set()


def read(root: RootLike, name: str) -> pa.Table:
    """All rows of a table, in no particular order; a column that a part lacks is null there. No table reads as empty.

    Raises ValueError if a part is damaged or the parts disagree on a column's type.
    """
    parts = []
    folder = Root(root).path("tables", name)
    for part in folder.files():
        path = folder / part
        data = path.get()
        if data is None or part != f"part-{sha256(data)[:32]}.parquet":
            raise ValueError(f"{path} is damaged (wrong sha256); delete it and write its rows again")
        parts.append(pq.read_table(io.BytesIO(data)))
    try:
        return pa.concat_tables(parts, promote_options="permissive") if parts else pa.table({})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"the parts of the table {name} disagree on a column: {error}") from error
