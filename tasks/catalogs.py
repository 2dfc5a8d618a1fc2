"""Catalogs by path or URL: read once for each content, with the tables that they name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache

from storage.roots import RootLike, place_at
from tasks.concepts.catalog import Catalog, parse_catalog, table_names


def load_catalog(file: RootLike) -> Catalog:
    """The catalog of a TOML, CSV or Parquet file, with the tables beside it that it names.

    Raises CatalogError with every error of the file, a table that is missing too, each with its place; ValueError in
    one sentence when the file cannot be read.
    """
    url = os.fspath(file)
    data, folder = _read(url), place_at(url).parent
    tables = ((name, (folder / name).get()) for name in table_names(data, url))
    return _parsed(url, data, tuple((name, table) for name, table in tables if table is not None))


def check_place(url: str, roots: Sequence[str]) -> None:
    """Raises ValueError unless a catalog lies below one of the roots (directories or URLs), links followed."""
    wanted = _resolved(url)
    if not any(wanted == root or wanted.startswith(f"{root.rstrip('/')}/") for root in map(_resolved, roots)):
        raise ValueError(
            f"catalog {url} is outside the places that catalogs may come from, {', '.join(roots) or 'none'}; "
            "put it there, or add its place to CONCEPTPRUNE_CATALOG_ROOTS"
        )


@lru_cache(maxsize=4)
def _parsed(url: str, data: bytes, tables: tuple[tuple[str, bytes], ...]) -> Catalog:
    return parse_catalog(data, url, dict(tables))


def _read(url: str) -> bytes:
    try:
        data = place_at(url).get()
    except OSError as error:
        raise ValueError(f"catalog {url} cannot be read: {error.strerror or error}; give the URL of a file") from None
    if data is None:
        raise ValueError(f"no catalog at {url}; give the path or URL of a TOML, CSV or Parquet file")
    return data


def _resolved(url: str) -> str:
    place = str(place_at(url))
    return os.path.realpath(place) if place.startswith("/") else place
