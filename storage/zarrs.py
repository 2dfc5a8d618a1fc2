"""What our Zarr v3 stores share: a checksum in every chunk, no consolidated metadata, errors in the user's words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest, Store
from zarr.codecs import Crc32cCodec
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.errors import GroupNotFoundError
from zarr.storage import WrapperStore

from storage.places import SEAL, Place
from tasks.diffusion.spec import NeuronSite

SITE = [field.name for field in fields(NeuronSite) if field.name != "name"]  # what a site's group says of it
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
    path: Place, attributes: Mapping[str, object], fill: Callable[[zarr.Group], None], drafts: Place | None = None
) -> bool:
    """Creates a group with all it holds, at once; False if there is one already, which then stays as it is."""

    def build(store: Store) -> None:
        fill(zarr.create_group(store, zarr_format=3, attributes=dict(attributes)))

    created = path.put_new_tree(build, drafts)
    if not created and not (path / SEAL).exists():
        raise DamagedStore(f"{path} is no store, but what an interrupted deletion left; delete it and run again")
    return created


def open_group(path: Place, writable: bool = False) -> zarr.Group:
    """An existing group. Raises ValueError if there is none."""
    try:
        return zarr.open_group(
            _store(path, writable), mode="r+" if writable else "r", zarr_format=3, use_consolidated=False
        )
    except (GroupNotFoundError, FileNotFoundError):
        raise ValueError(
            f"there is no store at {path}; it has not been written yet, or the root is another one"
        ) from None


def attributes(group: zarr.Group) -> dict[str, Any]:
    """A group's attributes: JSON values, whose types zarr leaves open."""
    return group.attrs.asdict()


def open_site(path: Place, site: str) -> zarr.Group:
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


def array_of(group: zarr.Group, site: str, name: str) -> zarr.Array[Any] | None:
    """An array of a site's group, None where the group says that another site has it; KeyError if there is none."""
    own = group[site]
    return None if own.attrs.get("source") else array(group, f"{site}/{name}")


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
    """All of an array of a group that was opened for reading. Raises KeyError if a chunk is missing."""
    return np.asarray(array(group, name)[...])


class _Whole(WrapperStore[Any]):
    """A store that raises KeyError for a chunk that is not there: zarr would give the fill value."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        found: Buffer | None = await self._store.get(key, prototype, byte_range)
        if found is None and "/c/" in f"/{key}":
            raise KeyError(f"its chunk {key} is missing")
        return found


def _store(path: Place, writable: bool) -> Store:
    store = path.store(writable)
    return store if writable else _Whole(store)


def check_group_name(site: str) -> None:
    """Raises ValueError if a site's name cannot name a group."""
    if "/" in site or site.startswith("__") or not site.strip("."):
        raise ValueError(f"the site name {site!r} cannot name a group; expected <component>.<qualified name>")


def site_attributes(site: NeuronSite) -> dict[str, Any]:
    """What a site's group says of it. Raises ValueError if its name cannot name a group."""
    check_group_name(site.name)
    return {key: value for key, value in site.as_json().items() if key != "name"}


def read_sites(path: Place) -> list[NeuronSite]:
    """The sites of a store whose root lists them, in that order."""
    sites = []
    for name in attributes(open_group(path))["sites"]:
        own = attributes(open_site(path, name))
        sites.append(NeuronSite(name, **{key: own[key] for key in SITE if key in own}))
    return sites
