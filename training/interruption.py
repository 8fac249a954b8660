"""SIGTERM, SIGUSR1 (which mpirun passes on and waits) and Ctrl-C: the loop finishes its step, saves and leaves."""

import signal
from types import FrameType


class Interrupted(Exception):
    """Training was stopped by a signal after it had saved; `exit_code` is 128 + the signal, as shells count."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class SignalWatch:
    """Context manager: remembers the first signal in `received`; a second one of its kind acts at once, as usual."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __enter__(self) -> "SignalWatch":
        self.received: int | None = None
        self.previous = {number: signal.signal(number, self._remember) for number in self.SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, self.previous[signal.Signals(number)])
