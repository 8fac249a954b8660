"""Ends a process whose partners no longer answer.

Horovod's stall check sees a process that runs but does not take part. It cannot see one that is stopped or cut off:
then its own threads wait as well, everywhere and forever.
"""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator

EXIT_CODE = 75  # sysexits.h: a temporary failure; the same command goes on from the last checkpoint


class Watchdog:
    """Looks every second at how long this process has been waiting for the others."""

    def __init__(self, limit_seconds: float | None) -> None:
        """`limit_seconds`: the longest wait; None: no limit, and nothing runs."""
        self.limit_seconds = limit_seconds
        self._waiting: tuple[str, float] | None = None
        if limit_seconds is not None:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    @contextlib.contextmanager
    def watching(self, what: str) -> Iterator[None]:
        """Around every operation that waits for other processes."""
        self._waiting = (what, time.monotonic())
        try:
            yield
        finally:
            self._waiting = None

    def _watch(self) -> None:
        while True:
            time.sleep(1.0)
            waiting = self._waiting
            if waiting is not None and time.monotonic() - waiting[1] > self.limit_seconds:  # type: ignore[operator]
                what, since = waiting
                print(
                    f"error: waited {time.monotonic() - since:.0f} s for the other processes ({what}): one of them "
                    "hangs, was stopped or is cut off; the same command goes on from the last checkpoint",
                    file=sys.stderr,
                    flush=True,
                )
                logging.shutdown()
                # The main thread hangs in the operation, so this process cannot be left in any other way.
                os._exit(EXIT_CODE)
