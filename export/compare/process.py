"""The parent's side of a row's process: a predictor whose work is done, and timed, elsewhere."""

import dataclasses
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import Batch
from export.compare.models import ModelSpec

_ROOT = Path(__file__).resolve().parents[2]


class RowError(Exception):
    """A row's process cannot go on; the text says why. `defect`: it died or failed, rather than refused."""

    def __init__(self, reason: str, defect: bool) -> None:
        super().__init__(reason)
        self.defect = defect


class RowProcess:
    """A process that holds one model and waits for work; see `training.prediction.Predictor`.

    Attribute `seconds`: how long its predictions took in all, without the way there and back.
    """

    def __init__(self, spec: ModelSpec, threads: int) -> None:
        """Starts the process; `wait_until_ready` must follow."""
        self.seconds = 0.0
        self.connection, theirs = multiprocessing.Pipe()
        words = [str(theirs.fileno()), json.dumps(dataclasses.asdict(spec)), str(threads)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "export.compare.worker", *words],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=environment(threads),
        )
        theirs.close()

    def wait_until_ready(self) -> None:
        """Returns when the model is loaded; RowError where it cannot be."""
        self._receive()

    def predict(self, batch: Batch) -> dict[str, np.ndarray]:
        """Logits by name; RowError where the process fails."""
        outputs, seconds = self._ask("predict", batch)
        self.seconds += seconds
        return outputs

    def time(self, batch: Batch) -> tuple[float, float]:
        """Seconds of one prediction by the clock, and of processor time; after one that is not timed."""
        return self._ask("time", batch)

    def peak_bytes(self) -> int:
        """The largest resident memory that the process has had."""
        return self._ask("peak", {})

    def close(self) -> None:
        """Ends the process, whatever it does."""
        self.connection.close()
        self.process.kill()
        self.process.wait()

    def _ask(self, request: str, batch: Batch) -> Any:
        try:
            self.connection.send((request, dict(batch)))
        except OSError:
            pass  # it has died: `_receive` finds its last words, or how it ended
        return self._receive()

    def _receive(self) -> Any:
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):
            raise RowError(_how_it_ended(self.process.wait()), defect=True) from None
        if kind in ("refused", "failed"):
            raise RowError(value, defect=kind == "failed")
        return value


def environment(threads: int) -> dict[str, str]:
    """The variables of a row's process: threads for what reads them there, the others as here."""
    count = str(threads)
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "TF_NUM_INTRAOP_THREADS": count,
        "TF_NUM_INTEROP_THREADS": count,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }


def _how_it_ended(code: int) -> str:
    if code == -9:
        return "its process was killed (signal 9), which is what happens where the memory is full"
    return f"its process ended by signal {-code}" if code < 0 else f"its process ended with exit code {code}"
