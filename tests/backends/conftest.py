"""Fixtures of the tests of single models."""

from collections.abc import Iterator

import pytest


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
