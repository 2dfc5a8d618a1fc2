"""What every test shares: a Prefect home that is not the user's, a Prefect server, hypothesis profiles."""

import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Prefect reads these when it is first imported, and processes that tests start inherit them.
_HOME = tempfile.mkdtemp(prefix="conceptprune-tests-")
os.environ["PREFECT_HOME"] = _HOME  # a test never reads or writes ~/.prefect
os.environ["PREFECT_LOGGING_LEVEL"] = "ERROR"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] = "90"  # a new home takes 25 s on two cores
os.environ["DO_NOT_TRACK"] = "1"
os.environ.pop("PREFECT_API_URL", None)  # a test never talks to the user's server
os.environ.pop("PREFECT_PROFILE", None)
os.environ.setdefault("MPLBACKEND", "agg")

# No deadline: the first example may compile the kernel (2-4 s).
settings.register_profile("local", max_examples=25, deadline=None)
settings.register_profile("ci", max_examples=200, deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_unconfigure() -> None:
    """Remove Prefect's home."""
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server with an empty database, for the flows that a test runs in this process."""
    from prefect.testing.utilities import prefect_test_harness  # 3 s: only for tests that ask for it

    with prefect_test_harness(server_startup_timeout=90):
        yield
