"""The TensorFlow 2 backend. Importing this package imports tensorflow, without its start-up chatter."""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

# Lines that TensorFlow's libraries write before their log level can be set: information, absl's apology for it, and the
# search for CUDA drivers, which `describe_device` reports in a word.
_CHATTER = re.compile(rb"^(I0000 |WARNING: All log messages before absl|E0000 .*(cuInit|cuda_))")


@contextmanager
def _without_chatter() -> Iterator[None]:
    """Holds back standard error while tensorflow loads and passes on every line that is not start-up chatter."""
    sys.stderr.flush()
    original = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(original, 2)
            os.close(original)
            held.seek(0)
            for line in held:
                if not _CHATTER.match(line):
                    sys.stderr.buffer.write(line)
            sys.stderr.flush()


with _without_chatter():
    import tensorflow as tf

    tf.config.list_physical_devices()  # loads the device libraries, which talk too
