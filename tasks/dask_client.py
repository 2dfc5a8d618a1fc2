"""Where Dask computes: on the cluster of DASK_SCHEDULER_ADDRESS when it is set, else on this process's threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import dask


@contextmanager
def dask_scheduler() -> Iterator[None]:
    """Make the cluster, or local threads, Dask's scheduler while the block runs."""
    address = os.environ.get("DASK_SCHEDULER_ADDRESS")
    if not address:
        with dask.config.set(scheduler="threads"):
            yield
        return
    from distributed import Client

    with Client(address, set_as_default=False) as client, client.as_current(), dask.config.set(scheduler=client.get):
        yield
