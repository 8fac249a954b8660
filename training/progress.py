"""A progress bar on a terminal, plain lines in a log."""

import logging
import os
import sys
import time
from typing import Any

from tqdm import tqdm

from twinquant.words import counted, plural

logger = logging.getLogger("twinquant")
bars_wanted = True  # --disable_progress_bar makes it False


class Progress:
    """Counts work done; use as a context manager."""

    def __init__(
        self,
        what: str,
        total: int,
        unit: str,
        initial: int = 0,
        every: int = 0,
        quiet: bool = False,
        lines: bool = True,
    ) -> None:
        """`every`: units between two lines in a log; 0: a line about every tenth of the work. `quiet`: say nothing.

        `lines`: whether there are lines where there is no bar. Their rate is that since the line before, so that one
        slow start, such as a graph that is compiled, is in the first of them alone.
        """
        self.what, self.total, self.unit, self.done = what, total, unit, initial
        self.every = every or max(1, total // 10)
        self.lines = lines and not quiet
        # Each mark is (time, units done).
        self.start = self.last_line = (time.monotonic(), initial)
        self.after_first: tuple[float, int] | None = None
        self.bar = None
        if not quiet and bars_wanted and sys.stderr.isatty():
            size: dict[str, Any] = {"dynamic_ncols": True} if _knows_its_size() else {"ncols": 80, "nrows": 24}
            self.bar = tqdm(desc=what, total=total, unit=unit, initial=initial, **size)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self, count: int = 1, note: str = "") -> None:
        """`count` more units are done; `note` is shown behind the count."""
        self.done += count
        now = (time.monotonic(), self.done)
        self.after_first = self.after_first or now
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(count)
        elif self.lines and (self.done - self.last_line[1] >= self.every or self.done >= self.total):
            rate, self.last_line = _rate(self.last_line, now), now
            tail = f", {note}" if note else ""
            total, units = counted(self.total, self.unit), plural(self.unit)
            logger.info("%s: %d of %s, %.2f %s/s%s", self.what, self.done, total, rate, units, tail)

    def summary(self) -> str:
        """What was done here in how many seconds; and the rate without the first call of `advance`, if others came."""
        now = (time.monotonic(), self.done)
        text = f"{counted(self.done - self.start[1], self.unit)} in {now[0] - self.start[0]:.1f} s"
        if self.after_first is None or self.after_first[1] == self.done:
            return text
        return f"{text}; {_rate(self.after_first, now):.2f} {plural(self.unit)}/s without the first {self.unit}"


def _rate(since: tuple[float, int], until: tuple[float, int]) -> float:
    return (until[1] - since[1]) / max(until[0] - since[0], 1e-9)


def _knows_its_size() -> bool:
    """Whether the terminal tells its size; those of `script` and `docker run -t` may say 0, which makes empty bars."""
    try:
        return min(os.get_terminal_size(sys.stderr.fileno())) > 0
    except (OSError, ValueError):  # a stream without a descriptor
        return False
