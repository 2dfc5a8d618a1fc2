"""How it is told that one of many failed: a sentence for people, and a traceback in the log if nobody foresaw it."""

from __future__ import annotations

from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger

from storage.urls import explain


def reason(error: BaseException, what: str) -> str:
    """An error of `what`, such as a concept, in a sentence for people.

    One that we have no sentence for is logged with its traceback: in the log of the flow run or task run, or where
    there is none, as on a Dask worker, on that process's standard error.
    """
    if isinstance(error, ValueError):
        return str(error)
    sentence = explain(error)
    if sentence is None:
        try:
            logger = get_run_logger()
        except MissingContextError:
            logger = get_logger("conceptprune")
        logger.error("%s failed", what, exc_info=error)
    return f"{type(error).__name__}: {sentence or error}"
