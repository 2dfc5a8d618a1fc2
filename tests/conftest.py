"""What every test shares: no settings of the user's, a Prefect server, an S3 server, hypothesis profiles."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.erase_cases import Case
    from tests.seaweed import Seaweed

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

# A test never reads the user's AWS settings or asks for a machine's role: those that need S3 take s3_root.
for _name in [name for name in os.environ if name.startswith(("AWS_", "CONCEPTPRUNE_S3_"))]:
    del os.environ[_name]
os.environ["AWS_CONFIG_FILE"] = os.path.join(_HOME, "no-aws-config")
os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.path.join(_HOME, "no-aws-credentials")
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"

# No deadline: the first example may compile the kernel (2-4 s).
settings.register_profile("local", max_examples=25, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, print_blob=True)
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


@pytest.fixture(scope="session")
def s3_server() -> Iterator["Seaweed"]:
    """A real S3 server on loopback, started once, with the bucket conceptprune-tests. Leave it running as it is."""
    from tests.seaweed import running  # botocore: only for tests that ask for it

    with running("conceptprune-tests") as server:
        yield server


@pytest.fixture
def s3_root(s3_server: "Seaweed", monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty place in it, with the environment that the standard AWS chain reads."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "CONCEPTPRUNE_S3_"))]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://conceptprune-tests/{uuid.uuid4().hex}"


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place for a store: a test that takes it runs on a disk and in an object store."""
    return str(tmp_path / "root") if request.param == "local" else request.getfixturevalue("s3_root")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> "Case":
    """A tiny model, a judge and a catalog of four concepts."""
    from tests import erase_cases  # torch: only for tests that ask for it

    return erase_cases.build(tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="session")
def family_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every family's pipeline, saved. Leave them as they are."""
    from tests import families  # torch: only for tests that ask for it

    root = tmp_path_factory.mktemp("families")
    for family in families.FAMILIES:
        families.build(family).save_pretrained(root / family)
    return {family: root / family for family in families.FAMILIES}
