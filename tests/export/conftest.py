"""Fixtures of the tests of export/."""

import logging
import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """fsync does nothing: it matters where power is lost, and takes most of the time on a busy disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    yield


@pytest.fixture(autouse=True)
def no_lasting_messages() -> Iterator[None]:
    """Commands send messages to the standard error of their test, which is closed after it."""
    logger = logging.getLogger("twinquant")
    before = (logger.handlers, logger.level, logger.propagate)
    yield
    logger.handlers, logger.level, logger.propagate = before
