"""The training loop both backends share: order of data, schedule, distillation, saving, exact resume."""

import logging
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from backends.base import Backend, Batch
from checkpoints.checkpoint import Checkpoint
from tasks.base import Features
from training.events import TrainingCurves
from training.interruption import Interrupted, SignalWatch
from training.order import DataOrder, ends_epoch, padded_length, pool_size, step_seed
from training.prediction import model_inputs
from training.processes import ALONE, Processes
from training.progress import Progress
from training.saves import RunFolder, TrainingState
from training.schedule import LearningRateSchedule
from twinquant.errors import UserError

logger = logging.getLogger("twinquant")


@dataclass(frozen=True)
class LoopSettings:
    """What the loop needs to know; `fingerprint` names everything that shapes the run's result."""

    total_steps: int
    batch_size: int  # of a micro batch
    global_batch: int  # rows of a step, over all micro batches and processes
    max_seq_length: int
    pad_to_max_length: bool
    group_by_length: bool
    seed: int
    save_steps: int
    epoch_rows: int  # examples of an epoch, at whose end the next two are due
    save_per_epoch: bool
    evaluate_per_epoch: bool
    log_steps: int
    fingerprint: dict
    evaluate_steps: int = 0  # between two evaluations during training; 0: none but those of epochs


class TrainingLoop:
    """Trains a backend to `total_steps`, from its loaded state or from the newest checkpoint of the same run."""

    def __init__(
        self,
        backend: Backend,
        features: Features,
        schedule: LearningRateSchedule,
        folder: RunFolder,
        settings: LoopSettings,
        as_checkpoint: Callable[[], Checkpoint],
        teacher: Backend | None = None,
        evaluate: Callable[[int], None] | None = None,
        processes: Processes = ALONE,
        curves: TrainingCurves | None = None,
    ) -> None:
        """`as_checkpoint` gives the backend's weights with the config, ranges and vocabulary saved beside them.

        `evaluate` is called with the number of steps done, every `evaluate_steps` of them and after the last.
        `processes` all run this loop; rank 0 saves, and has `curves` where they are asked for.
        """
        self.backend, self.features, self.schedule = backend, features, schedule
        self.folder, self.settings, self.as_checkpoint, self.teacher = folder, settings, as_checkpoint, teacher
        self.evaluate, self.processes, self.curves = evaluate, processes, curves
        if processes.size > settings.global_batch:
            raise UserError(f"{processes.size} processes share {settings.global_batch} rows a step: start fewer")
        lengths = features.lengths if settings.group_by_length else None
        whole = len(features) // settings.global_batch
        if lengths is not None and pool_size(whole) == 1:
            logger.warning(
                "warning: --group_by_length groups nothing: an epoch has %d whole batches of %d rows, fewer than 8",
                whole, settings.global_batch,
            )  # fmt: skip
        self.order = DataOrder(settings.seed, len(features), settings.global_batch, lengths)
        backend.sum_gradients = processes.sum_gradients if processes.size > 1 else None

    def run(self, first_step: int = 0) -> int:
        """Trains from `first_step` on; returns the step reached.

        Raises:
            UserError: the loss is not finite; the last good checkpoint stays.
            Interrupted: SIGTERM or Ctrl-C, after saving.
        """
        settings = self.settings
        saved = first_step
        if self.backend.compiles_training and first_step < settings.total_steps:
            logger.info("compiling the first step")
        with (
            SignalWatch() as watch,
            Progress("train", settings.total_steps, "step", first_step, settings.log_steps) as progress,
        ):
            for step in range(first_step, settings.total_steps):
                started = time.monotonic()
                loss, received = self._together(self._step(step), watch.received)
                seconds = time.monotonic() - started
                if not math.isfinite(loss):
                    what = f"the loss or its gradient is not finite ({loss}) at step {step + 1}"
                    raise UserError(self._not_finite(what, saved))
                progress.advance(1, f"loss {loss:.4f}, learning rate {self.schedule(step):.3g}{self._skipped()}")
                done = step + 1
                if self.curves is not None:
                    clipped = partial(self._clipped_fractions, step)
                    self.curves.step(done, loss, self.schedule(step), settings.global_batch, seconds, clipped)
                epoch_ends = ends_epoch(done, settings.epoch_rows, settings.global_batch)
                due = done == settings.total_steps or done % settings.save_steps == 0
                due = due or (settings.save_per_epoch and epoch_ends)
                # Before the save: a run that is killed in between evaluates again when it resumes.
                self._evaluate(done, epoch_ends)
                if due or received:
                    self._save(done, saved)
                    saved = done
                    # A signal that came meanwhile must not be lost where no step follows.
                    received = received or self._of_any_process(watch.received)
                if received:
                    name = signal.Signals(received).name
                    raise Interrupted(
                        f"{name} received: saved {self.folder.path(done)} after step {done} of {settings.total_steps}; "
                        "the same command goes on from there",
                        received,
                    )
        if first_step < settings.total_steps:
            logger.info("trained %s", progress.summary())
        return settings.total_steps

    def _skipped(self) -> str:
        """What to add to a line of the log where steps in float16 changed nothing."""
        skipped = self.backend.loss_scale.skipped
        return f", {skipped} steps skipped: gradients overflowed in float16" if skipped else ""

    def _evaluate(self, done: int, epoch_ends: bool) -> None:
        settings, every = self.settings, self.settings.evaluate_steps
        if self.evaluate is None or not (every or settings.evaluate_per_epoch):
            return
        due = (every > 0 and done % every == 0) or (settings.evaluate_per_epoch and epoch_ends)
        if due or done == settings.total_steps:
            self.evaluate(done)

    def _step(self, step: int) -> float:
        """One step; returns this process's part of the mean loss."""
        settings, processes = self.settings, self.processes
        parts = self._rows(step)
        batches = [self._batch(rows) for rows in parts]
        shares = [len(rows) / settings.global_batch for rows in parts]
        seed = step_seed(settings.seed, step, processes.rank)
        return self.backend.train_step(batches, self.schedule(step), seed, shares)

    def _rows(self, step: int) -> list[np.ndarray]:
        """The rows of this process's micro batches."""
        return self.order.batch(step, self.settings.batch_size, self.processes.rank, self.processes.size)

    def _clipped_fractions(self, step: int) -> dict[str, float]:
        """Of the model after that step, on the step's first micro batch."""
        rows = self._rows(step)[0]
        length = self._length(rows, pad_to_max_length=False)
        return self.backend.clipped_fractions(model_inputs(self.features.batch(rows, length)))

    def _together(self, loss: float, received: int | None) -> tuple[float, int]:
        """The mean loss, and the number of a signal that any process received, else 0: the same on all of them.

        Moving averages, which each process has from its own rows, become their mean.
        """
        if self.processes.size == 1:
            return loss, received or 0
        losses, signals = self.processes.stack(np.array([loss, received or 0], np.float64), "step").T
        if averages := self.backend.ranges():
            mean = self.processes.stack(np.array(list(averages.values()), np.float64), "ranges").mean(axis=0)
            self.backend.set_ranges(dict(zip(averages, mean.astype(np.float32), strict=True)))
        return float(losses.sum()), int(signals.max())

    def _of_any_process(self, received: int | None) -> int:
        """The number of a signal that any process received, else 0."""
        return int(self.processes.stack(np.array([received or 0], np.float64), "signal").max())

    def _length(self, rows: np.ndarray, pad_to_max_length: bool) -> int:
        lengths, longest = self.features.lengths[rows], self.settings.max_seq_length
        return padded_length(lengths, longest, self.backend.length_multiple, pad_to_max_length)

    def _batch(self, indexes: np.ndarray) -> Batch:
        batch = self.features.batch(indexes, self._length(indexes, self.settings.pad_to_max_length))
        if self.teacher is not None:
            logits = self.teacher.predict(model_inputs(batch))
            batch |= {f"teacher_{name}": values for name, values in logits.items()}
        return batch

    def _save(self, step: int, saved: int) -> None:
        """Saves on rank 0, after all processes have found their models equal."""
        state = TrainingState(step, self.settings.fingerprint, self.backend.optimizer_state())
        checkpoint = self.as_checkpoint()
        for name, tensor in checkpoint.tensors.items():
            if not np.isfinite(tensor).all():  # the update overflowed, although the loss and its gradient did not
                raise UserError(self._not_finite(f"{name} is not finite after step {step}", saved))
        where = f"after step {step} the processes' models differ, so nothing is saved"
        self.processes.check_equal(checkpoint.tensors | checkpoint.ranges | state.optimizer, where)
        path = self.processes.first(lambda: self.folder.save(step, checkpoint, state))
        logger.info("saved %s", path)

    def _not_finite(self, what: str, saved: int) -> str:
        good = f"the last good checkpoint is {self.folder.path(saved)}" if saved else "nothing was saved yet"
        return f"{what}; {good}; lower --learning_rate"
