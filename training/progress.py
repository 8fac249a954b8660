"""A progress bar on a terminal, plain lines in a log."""

import logging
import os
import sys
import time
from typing import Any

from tqdm import tqdm

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

        `lines`: whether there are lines where there is no bar.
        """
        self.what, self.total, self.unit, self.done = what, total, unit, initial
        self.every = every or max(1, total // 10)
        self.lines = lines and not quiet
        self.started, self.initial, self.last_line = time.monotonic(), initial, initial
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
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(count)
        elif self.lines and (self.done - self.last_line >= self.every or self.done >= self.total):
            self.last_line = self.done
            rate = (self.done - self.initial) / max(time.monotonic() - self.started, 1e-9)
            tail = f", {note}" if note else ""
            units = f"{self.unit}es" if self.unit.endswith("ch") else f"{self.unit}s"
            logger.info("%s: %d of %d %s, %.2f %s/s%s", self.what, self.done, self.total, units, rate, units, tail)


def _knows_its_size() -> bool:
    """Whether the terminal tells its size; those of `script` and `docker run -t` may say 0, which makes empty bars."""
    try:
        return min(os.get_terminal_size(sys.stderr.fileno())) > 0
    except (OSError, ValueError):  # a stream without a descriptor
        return False
