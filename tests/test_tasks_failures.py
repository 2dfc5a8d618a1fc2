"""One of many that fails: a sentence, and in the log where it happened if it is none of our own sentences."""

import logging
from collections.abc import Iterator

import pytest
from botocore.exceptions import EndpointConnectionError

from storage.urls import SettingsError
from tasks.failures import reason


@pytest.fixture
def log() -> Iterator[list[logging.LogRecord]]:
    """What is logged outside a run: Prefect's loggers keep it from pytest's own handler."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger("prefect.conceptprune")
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("the mask of fox is damaged; run again"), "the mask of fox is damaged; run again"),
        (
            SettingsError("AWS_ENDPOINT_URL is no URL; change it"),
            "SettingsError: AWS_ENDPOINT_URL is no URL; change it",
        ),
        (
            EndpointConnectionError(endpoint_url="http://127.0.0.1:1"),
            "EndpointConnectionError: the server did not answer (EndpointConnectionError); "
            "check the endpoint and the network, then run again",
        ),
    ],
)
def test_what_was_foreseen_is_a_sentence_and_no_more(error: Exception, said: str, log: list[logging.LogRecord]) -> None:
    assert reason(error, "fox") == said
    assert log == []


def test_what_nobody_foresaw_is_logged_with_where_it_happened(log: list[logging.LogRecord]) -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        _ = 1 / 0
    assert reason(raised.value, "fox") == "ZeroDivisionError: division by zero"
    assert [record.getMessage() for record in log] == ["fox failed"]
    assert "test_tasks_failures.py" in logging.Formatter().format(log[0])
