"""The process of one row: opens its model and predicts what it is given, nothing else.

python -m export.compare.worker FD SPEC THREADS, where FD is the parent's connection and SPEC a ModelSpec as JSON. It
answers one request at a time and, after a timed one, only when its threads are quiet, so that no row slows another.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from export.compare.models import ModelSpec, open_model
from twinquant.errors import UserError

if TYPE_CHECKING:
    from training.prediction import Predictor

QUIET_AFTER_S = 2.0  # at most; a runtime whose threads spin for longer is measured all the same
_STEP_S = 0.005


def main(argv: list[str]) -> None:
    """Serves until the parent closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends this process
    os.dup2(2, 1)  # nothing that a framework prints shall be taken for the command's result
    connection = Connection(int(argv[0]))
    try:
        model = open_model(ModelSpec(**json.loads(argv[1])), int(argv[2]))
        connection.send(("ready", None))
        while True:
            connection.send(answer(model, *connection.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has gone
    except (UserError, ImportError) as error:
        connection.send(("refused", str(error)))
    except Exception as error:
        traceback.print_exc()
        connection.send(("failed", f"{type(error).__name__}: {error}"))


def answer(model: Predictor, request: str, batch: dict) -> tuple[str, object]:
    """What is sent back for a request: its name and a value."""
    if request == "predict":
        started = time.perf_counter()
        outputs = model.predict(batch)
        return request, (outputs, time.perf_counter() - started)
    if request == "time":
        # Others ran since this process's last turn; the first run brings its weights back into the caches and wakes
        # its threads, so that the second one is what a process that goes on predicting sees.
        model.predict(batch)
        started, started_cpu = time.perf_counter(), time.process_time()
        model.predict(batch)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
        wait_until_quiet()
        return request, (seconds, cpu_seconds)
    if request == "peak":
        return request, peak_bytes()
    raise ValueError(f"unknown request {request!r}")


def wait_until_quiet() -> None:
    """Waits until this process uses no processor time: thread pools spin for a while after their work."""
    end = time.monotonic() + QUIET_AFTER_S
    while time.monotonic() < end:
        before = time.process_time()
        time.sleep(_STEP_S)
        if time.process_time() - before < _STEP_S / 10:
            return


def peak_bytes() -> int:
    """The largest resident memory that this process has had.

    On Linux from VmHWM: getrusage's ru_maxrss counts what the parent had when it started this process.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main(sys.argv[1:])
