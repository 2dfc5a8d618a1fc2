"""Files of evaluation prompts: text with a prompt a line, CSV or Parquet with a column of prompts, perhaps of seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from storage.names import sha256
from storage.roots import place_at
from tasks.concepts.concept import Expectation
from tasks.concepts.prompts import Prompt
from tasks.concepts.tables import suffix_of

FIRST_SEED = 1_000_000  # of prompts without seeds of their own: other noise than captured prompts
MOST = 1_000_000  # prompts of a file


@dataclass(frozen=True)
class PromptFile:
    """The prompts of a file, as they were when it was looked at."""

    url: str
    sha256: str
    prompt: tuple[str, ...]  # names of the column of prompts, the first that is there counts
    seed: tuple[str, ...] = ()  # likewise of seeds
    labels: tuple[str, ...] = ()  # that a judge should give every image
    seeds: int = 1  # images a prompt, from seeds one after the other
    limit: int | None = None  # prompts at most, the first ones

    @classmethod
    def look(cls, url: str, **options: Any) -> PromptFile:
        """The file as it is now. Raises ValueError in one sentence if it cannot be read, or has no prompts."""
        found = cls(url, sha256(_read(url)), **options)
        if not found.expectations():
            raise ValueError(f"{url} has no prompts")
        return found

    @property
    def part(self) -> str:
        """The file's name without its suffix."""
        return self.url.rstrip("/").rpartition("/")[2].partition(".")[0]

    def expectations(self) -> Sequence[Expectation]:
        """The prompts. Raises ValueError if the file has changed since, or its columns are others."""
        data = _read(self.url)
        if sha256(data) != self.sha256:
            raise ValueError(f"{self.url} has changed since the evaluation was planned; run it again")
        return _expectations(self, data)


@lru_cache(maxsize=8)
def _expectations(file: PromptFile, data: bytes) -> tuple[Expectation, ...]:
    rows = _rows(file, data)[: file.limit]
    if len(rows) * file.seeds > MOST:
        raise ValueError(f"{file.url} makes {len(rows) * file.seeds} images; {MOST} are the most, give --limit")
    prompts = [
        Prompt(text, (FIRST_SEED + i * file.seeds if seed is None else seed) + extra)
        for i, (text, seed) in enumerate(rows)
        for extra in range(file.seeds)
    ]
    return tuple(Expectation(prompt, file.labels) for prompt in dict.fromkeys(prompts))


def _rows(file: PromptFile, data: bytes) -> list[tuple[str, int | None]]:
    """Each prompt, and its seed where the file has one."""
    suffix = suffix_of(file.url)
    if suffix == ".txt":
        return [(line.strip(), None) for line in _text(file, data).splitlines() if line.strip()]
    if suffix == ".csv":
        table = list(csv.DictReader(io.StringIO(_text(file, data), newline="")))
        columns = list(table[0]) if table else []
    elif suffix == ".parquet":
        table, columns = _parquet(file, data)
    else:
        raise ValueError(f"{file.url} is no file of prompts; give .txt with a prompt a line, .csv or .parquet")
    text = _column(file, columns, file.prompt)
    if text is None:
        raise ValueError(f"{file.url} has no column {' or '.join(file.prompt)}; it has {', '.join(columns) or 'none'}")
    seed = _column(file, columns, file.seed)
    return [(str(row[text]).strip(), _seed(file, row[seed]) if seed else None) for row in table if row[text]]


def _parquet(file: PromptFile, data: bytes) -> tuple[list[dict[str, Any]], list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file.url} is not Parquet that can be read: {str(error).splitlines()[0][:200]}") from error
    kept = [name for name in (*file.prompt, *file.seed) if name in table.column_names]
    return table.select(kept).to_pylist(), table.column_names


def _column(file: PromptFile, columns: Sequence[str], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _seed(file: PromptFile, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ValueError(f"{file.url} has the seed {str(value)[:40]!r}, which is no number") from None


def _text(file: PromptFile, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{file.url} is not UTF-8 text; save it as UTF-8") from None


def _read(url: str) -> bytes:
    try:
        data = place_at(url).get()
    except OSError as error:
        raise ValueError(f"{url} cannot be read: {error.strerror or error}; give a file of prompts") from None
    if data is None:
        raise ValueError(f"no prompts at {url}; give a file, .txt with a prompt a line, .csv or .parquet")
    return data
