"""obstore against s3fs as zarr's way to object storage, at the size of one prompt set: docs/decisions/005.

    python -m pytest tests/benchmarks/test_object_stores.py --benchmark-enable --benchmark-group-by=func

The server, SeaweedFS, runs on the same cores, and its work is in both times: read the ratios. At full size this takes
5 minutes and about 4 GB in the temporary folder.
"""

import uuid
from dataclasses import dataclass

import dask.array
import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec
from zarr.core.sync import sync
from zarr.storage import FsspecStore, ObjectStore

pytestmark = [
    pytest.mark.s3,
    pytest.mark.filterwarnings("ignore:ObjectStore is experimental"),
]

WIDTHS = (1280,) * 5 + (2560,) * 5 + (5120,) * 6  # of Stable Diffusion 1.5's sites
ROUNDS = 3


@dataclass(frozen=True)
class Size:
    """What is stored: chunks [1, steps, branches, width] for each prompt and width, and single small chunks."""

    prompts: int
    steps: int
    widths: tuple[int, ...]
    small_chunks: int
    rounds: int


FULL = Size(20, 50, WIDTHS, 1000, ROUNDS)
SMALL = Size(2, 3, (8, 16), 4, 1)


@pytest.fixture(scope="module")
def size(pytestconfig):
    return FULL if pytestconfig.getoption("benchmark_enable") else SMALL


@pytest.fixture(scope="module")
def energies(size):
    """A prompt's energies of each width [steps, branches, width]; all prompts get the same."""
    random = np.random.default_rng(0)
    return {width: random.random((size.steps, 2, width), np.float32) for width in set(size.widths)}


def by_obstore(root):
    from obstore.store import S3Store

    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    return ObjectStore(S3Store(bucket, prefix=prefix, client_options={"allow_http": True}))


def by_s3fs(root):
    from s3fs import S3FileSystem

    config = {"s3": {"addressing_style": "path"}, "max_pool_connections": 50}  # 10 else
    files = S3FileSystem(asynchronous=True, use_listings_cache=False, skip_instance_cache=True, config_kwargs=config)
    return FsspecStore(files, path=root.removeprefix("s3://"))


@pytest.fixture(params=[by_obstore, by_s3fs])
def store(request, s3_root):
    store = request.param(s3_root)
    yield store
    if isinstance(store, FsspecStore):
        sync(store.fs._s3.close())  # in zarr's own event loop; s3fs would leave it to the garbage collector


def create(store, shape, chunks):
    """An array as activation stores have them, at a new path."""
    codec = {"compressors": [Crc32cCodec()], "fill_value": np.nan}
    return zarr.create_array(store, name=uuid.uuid4().hex, shape=shape, chunks=chunks, dtype=np.float32, **codec)


def create_sites(store, size):
    shapes = [(size.prompts, size.steps, 2, width) for width in size.widths]
    return [create(store, shape, (1, *shape[1:])) for shape in shapes]


def write_prompts(sites, energies):
    """Prompt by prompt and site by site, as a capture does."""
    for prompt in range(sites[0].shape[0]):
        for site in sites:
            site[prompt] = energies[site.shape[-1]]
    return sites


def read_site(site):
    """One site's energies summed over its prompts, a chunk a block, in threads."""
    return dask.array.from_array(site, chunks=site.chunks).sum(0).compute(scheduler="threads")


def read_sites(sites):
    return [read_site(site) for site in sites]


def check(sums, energies, size):
    for width, found in zip(size.widths, sums, strict=True):
        np.testing.assert_allclose(found, energies[width] * size.prompts, rtol=1e-5)


def test_write_prompts(benchmark, store, size, energies):
    def fresh():
        return (create_sites(store, size), energies), {}

    sites = benchmark.pedantic(write_prompts, setup=fresh, rounds=size.rounds)
    check(read_sites(sites), energies, size)


@pytest.fixture
def written(store, size, energies):
    sites = create_sites(store, size)
    write_prompts(sites, energies)
    return sites


def test_read_one_site(benchmark, written, size, energies):
    found = benchmark.pedantic(read_site, (written[-1],), rounds=3 * size.rounds, warmup_rounds=1)
    np.testing.assert_allclose(found, energies[size.widths[-1]] * size.prompts, rtol=1e-5)


def test_read_all_sites(benchmark, written, size, energies):
    check(benchmark.pedantic(read_sites, (written,), rounds=size.rounds, warmup_rounds=1), energies, size)


def test_write_small_chunks(benchmark, store, size):
    values = np.ones((size.small_chunks, 1000), np.float32)

    def fresh():
        return (create(store, values.shape, (1, 1000)),), {}

    def write(array):
        array[...] = values
        return array

    array = benchmark.pedantic(write, setup=fresh, rounds=size.rounds)
    np.testing.assert_array_equal(array[...], values)


def test_read_small_chunks(benchmark, store, size):
    values = np.ones((size.small_chunks, 1000), np.float32)
    array = create(store, values.shape, (1, 1000))
    array[...] = values
    found = benchmark.pedantic(lambda: array[...], rounds=size.rounds, warmup_rounds=1)
    np.testing.assert_array_equal(found, values)
