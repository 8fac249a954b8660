"""Every test that asks for `backend_name` runs once per backend; models are those of tests/tiny_bert.py."""

import pytest
from tiny_bert import FRAMEWORKS, require


@pytest.fixture(params=FRAMEWORKS)
def backend_name(request) -> str:
    return require(request.param)


@pytest.fixture
def both_backends() -> list[str]:
    """For tests that compare the two: skipped unless both frameworks are installed."""
    return [require(name) for name in FRAMEWORKS]
