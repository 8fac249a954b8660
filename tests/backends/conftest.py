"""Every test that asks for `backend_name` runs once per backend."""

from collections.abc import Iterator

import pytest
from tiny_bert import FRAMEWORKS, require


@pytest.fixture(params=FRAMEWORKS)
def backend_name(request) -> str:
    return require(request.param)


@pytest.fixture
def both_backends() -> list[str]:
    """For tests that compare the two: skipped unless both frameworks are installed."""
    return [require(name) for name in FRAMEWORKS]


@pytest.fixture
def without_graphs() -> Iterator[None]:
    """TensorFlow runs the model's Python directly: for tests that switch quantizers often, where tracing takes long."""
    try:
        import tensorflow as tf
    except ModuleNotFoundError:
        yield  # nothing to switch off
        return
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
