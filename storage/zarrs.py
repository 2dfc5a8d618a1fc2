"""What our Zarr v3 stores share: a checksum in every chunk, no consolidated metadata, errors in the user's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore

from storage.urls import put_new_tree
from tasks.diffusion.spec import NeuronSite

STRING = np.dtypes.StringDType()  # zarr warns for every other kind of string


class DamagedStore(ValueError):
    """Bytes of a store are gone or not what was written."""


@contextmanager
def reading(what: str, remedy: str) -> Iterator[None]:
    """Turns zarr's complaint about a chunk into a DamagedStore that says what is damaged and what to do."""
    try:
        yield
    except DamagedStore:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedStore(f"{what} is damaged ({error}); {remedy}") from error


def create(
    path: Path, attributes: Mapping[str, object], fill: Callable[[zarr.Group], None], drafts: Path | None = None
) -> bool:
    """Creates a group with all it holds, at once; False if there is one already, which then stays as it is."""

    def build(draft: Path) -> None:
        fill(zarr.create_group(LocalStore(draft), zarr_format=3, attributes=dict(attributes)))

    created = put_new_tree(path, build, drafts)
    if not created and not (path / "zarr.json").is_file():
        raise DamagedStore(f"{path} is no store, but what an interrupted deletion left; delete it and run again")
    return created


def open_group(path: Path, writable: bool = False) -> zarr.Group:
    """An existing group. Raises ValueError if there is none."""
    if not (path / "zarr.json").is_file():
        raise ValueError(f"there is no store at {path}; it has not been written yet, or the root is another one")
    return zarr.open_group(LocalStore(path), mode="r+" if writable else "r", use_consolidated=False)


def attributes(group: zarr.Group) -> dict[str, Any]:
    """A group's attributes: JSON values, whose types zarr leaves open."""
    return group.attrs.asdict()


def open_site(path: Path, site: str) -> zarr.Group:
    """A site's group in a store whose root lists its sites. Raises ValueError if it is not one of them."""
    sites = attributes(open_group(path))["sites"]
    if site not in sites:
        raise ValueError(f"{path} holds no site {site}; it holds {', '.join(sites)}")
    return open_group(path / site)


def array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """An array of a group, by its path inside it. Raises KeyError if there is none."""
    node = group[name]
    if not isinstance(node, zarr.Array):
        raise KeyError(f"{name} is not an array")
    return node


def add_array(
    group: zarr.Group,
    name: str,
    dims: Sequence[str],
    data: NDArray[Any],
    chunks: tuple[int, ...] | None = None,
    **attributes: Any,
) -> None:
    """Adds an array and its data. Every chunk is stored, so that a missing one can be told from zeros."""
    new = group.create_array(
        name,
        shape=data.shape,
        dtype=data.dtype,
        chunks=chunks or tuple(max(1, n) for n in data.shape),
        compressors=[Crc32cCodec()],
        dimension_names=dims,
        attributes=attributes,
        config={"write_empty_chunks": True},
    )
    new[...] = data


def read_all(group: zarr.Group, name: str) -> NDArray[Any]:
    """All of an array that add_array wrote. Raises KeyError if a chunk is missing: zarr would return the fill value."""
    node = array(group, name)
    data = np.asarray(node[...])
    if node.nchunks_initialized != node.nchunks:
        raise KeyError(f"{node.nchunks - node.nchunks_initialized} of {node.nchunks} chunks are missing")
    return data


def check_group_name(site: str) -> None:
    """Raises ValueError if a site's name cannot name a group."""
    if "/" in site or site.startswith("__") or not site.strip("."):
        raise ValueError(f"the site name {site!r} cannot name a group; expected <component>.<qualified name>")


def site_attributes(site: NeuronSite) -> dict[str, Any]:
    """What a site's group says of it. Raises ValueError if its name cannot name a group."""
    check_group_name(site.name)
    return {"kind": site.kind, "width": site.width, "rows": site.rows}


def read_sites(path: Path) -> list[NeuronSite]:
    """The sites of a store whose root lists them, in that order."""
    sites = []
    for name in attributes(open_group(path))["sites"]:
        own = attributes(open_site(path, name))
        sites.append(NeuronSite(name, own["kind"], own["width"], own["rows"]))
    return sites
