"""Event files for TensorBoard: the curves of a training run, which a resumed run goes on with.

Written with TensorBoard's own messages and record writer, one record at a time, so that neither framework is imported
and no thread has to be waited for: what is logged is on the disk, also of a run that is killed next.
"""

import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twinquant.errors import UserError
from twinquant.files import make_folder

FOLDER = "tensorboard"  # in the output folder, where --logging_dir does not name another


class EventFile:
    """The scalars of one run; of several processes only rank 0 has one."""

    def __init__(self, folder: str | Path, first_step: int = 0) -> None:
        """Begins a new file, whose curves replace from `first_step` on what files of earlier runs hold.

        Raises UserError where TensorBoard is not installed or the folder cannot be written.
        """
        try:
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError as error:
            raise UserError(MISSING) from error
        self._event: Any = Event
        self._summary: Any = Summary
        make_folder(folder)
        # As TensorFlow names them: TensorBoard reads the files of a folder in the order of their names.
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self.path = Path(folder) / name
        try:
            self._writer = RecordWriter(open(self.path, "xb"))
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error
        self._write(self._event(wall_time=time.time(), file_version="brain.Event:2"))
        # TensorBoard drops points of this step and later ones when it meets this.
        restart = SessionLog(status=SessionLog.START)
        self._write(self._event(wall_time=time.time(), step=first_step, session_log=restart))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to every curve."""
        points = [self._summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(self._event(wall_time=time.time(), step=step, summary=self._summary(value=points)))

    def close(self) -> None:
        self._writer.close()

    def _write(self, event: Any) -> None:
        try:
            self._writer.write(event.SerializeToString())
            self._writer.flush()
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error


MISSING = "--tensorboard needs the package tensorboard, not installed; pip install '.[tensorboard]' installs it."


class TrainingCurves:
    """What the training loop tells an event file, every `log_steps` steps and after the last."""

    def __init__(self, file: EventFile, log_steps: int, total_steps: int) -> None:
        self.file, self.log_steps, self.total_steps = file, log_steps, total_steps
        self._rows, self._seconds = 0, 0.0

    def step(
        self,
        done: int,
        loss: float,
        learning_rate: float,
        rows: int,
        seconds: float,
        clipped: Callable[[], Mapping[str, float]],
    ) -> None:
        """Tells of one step.

        Args:
            done: number of steps done, of the whole run. The curves' steps are those at which it divides by
                `log_steps`, so that a resumed run puts its points where an unbroken one does.
            rows: of the step, over all processes.
            seconds: that it took.
            clipped: gives the clipped fraction by quantizer; called at logging steps only.
        """
        self._rows, self._seconds = self._rows + rows, self._seconds + seconds
        if done % self.log_steps and done != self.total_steps:
            return
        values = {"train/loss": loss, "train/learning_rate": learning_rate}
        values["train/examples_per_second"] = self._rows / max(self._seconds, 1e-9)
        self.file.write(done, values | clipped_tags(clipped()))
        self._rows, self._seconds = 0, 0.0


def clipped_tags(fractions: Mapping[str, float]) -> dict[str, float]:
    """The curves of clipped fractions, a group per layer: "clipped_layer_3/output/dense/input_quantizer"."""
    return {_tag(scope): value for scope, value in fractions.items()}


def _tag(scope: str) -> str:
    match = re.fullmatch(r"bert/encoder/(layer_\d+)/(.+)", scope)
    return f"clipped_{match[1]}/{match[2]}" if match else f"clipped/{scope.removeprefix('bert/')}"
