"""SIGTERM, SIGUSR1 (which mpirun passes on and waits) and Ctrl-C: the loop finishes its step, saves and leaves."""

import logging
import os
import signal
import threading
from types import FrameType

logger = logging.getLogger("twinquant")


class Interrupted(Exception):
    """Training was stopped by a signal after it had saved; `exit_code` is 128 + the signal, as shells count."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class SignalWatch:
    """Context manager: remembers the first signal in `received`; a second one of its kind acts at once, as usual.

    The first is acknowledged in the log when it comes. A thread does that: Python runs a handler only between two of
    its own instructions, and a step may be a single long call of the framework. Nor does a handler know how many
    signals came in such a call, which the thread counts.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __enter__(self) -> "SignalWatch":
        self.received: int | None = None
        self.counts = dict.fromkeys(self.SIGNALS, 0)
        reading, self.pipe = os.pipe()
        os.set_blocking(self.pipe, False)  # what Python asks of a descriptor that a signal is written to
        self.thread = threading.Thread(target=self._acknowledge, args=(reading,), name="signals", daemon=True)
        self.thread.start()
        self.previous_pipe = signal.set_wakeup_fd(self.pipe, warn_on_full_buffer=False)
        self.previous = {number: signal.signal(number, self._remember) for number in self.SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self.previous_pipe)
        os.close(self.pipe)
        self.thread.join()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, self.previous[signal.Signals(number)])
        if self.counts[signal.Signals(number)] > 1:
            signal.raise_signal(number)

    def _acknowledge(self, reading: int) -> None:
        """Reads the numbers of signals, one byte each, until the other end is closed."""
        with os.fdopen(reading, "rb", buffering=0) as numbers:
            while byte := numbers.read(1):
                if byte[0] not in self.counts:
                    continue
                number = signal.Signals(byte[0])
                self.counts[number] += 1
                if self.counts[number] == 1:
                    logger.warning("%s: finishing this step and saving; again stops at once", number.name)
