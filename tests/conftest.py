"""Fixtures that tests of several packages share. Every test that asks for `backend_name` runs once per backend."""

import logging
from pathlib import Path

import pytest
from tiny_bert import FRAMEWORKS, require


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets and models beside the checkout; tests that need it are skipped without it."""
    folder = Path(__file__).resolve().parents[1] / "../shared/data"
    if not folder.is_dir():
        pytest.skip("the folder ../shared/data beside the checkout is absent")
    return folder.resolve()


@pytest.fixture(params=FRAMEWORKS)
def backend_name(request) -> str:
    """The name of a backend whose framework is installed."""
    return require(request.param)


@pytest.fixture
def both_backends() -> list[str]:
    """For tests that compare the two: skipped unless both frameworks are installed."""
    return [require(name) for name in FRAMEWORKS]


@pytest.fixture(autouse=True)
def untouched_logger() -> None:
    """A script called in this process, by a test or by a fixture of a whole module, sets the logger up for itself."""
    logger = logging.getLogger("twinquant")
    logger.setLevel(logging.NOTSET)
    logger.propagate, logger.handlers = True, []
