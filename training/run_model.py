"""The model that a run works on: its checkpoint, config, backend and ranges, loaded, resumed and saved."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from backends import create_backend
from backends.base import Backend, DistillationSettings, OptimizerSettings, RuntimeSettings
from checkpoints.checkpoint import Checkpoint, load_checkpoint
from checkpoints.config import BertConfig
from checkpoints.fastertransformer import write_fastertransformer
from quantization.calibration_record import calibrated_exclusion, calibrated_mode, read_calibration
from quantization.exclusion import exclude
from quantization.modes import MODE_NAMES, Mode, custom_mode, get_mode
from quantization.ranges import select_ranges
from tasks.base import Task
from training.cards import TWIN_FILE, checkpoint_card, folder_card
from training.evaluations import BEST
from training.initialization import complete_tensors, fit_head, random_checkpoint
from training.processes import Processes
from training.resume import (
    DEVICE,
    PROCESSES,
    describe_change,
    find_resume_point,
    model_fingerprint,
    settings_fingerprint,
    share_checkpoint,
)
from training.saves import RunFolder
from training.schedule import number_of_steps
from training.start import config_of, config_with_labels, lower_case_of, start_of, vocab_file_of
from training.teacher import teacher_config
from twinquant.errors import UserError
from twinquant.model_card import Card, make_card, write_card
from twinquant.run_record import RunRecord
from twinquant.settings import CommonSettings
from twinquant.words import no_effect

logger = logging.getLogger("twinquant")

NEW_HEAD = "; training and calibration can begin with a new head (--ignore_mismatched_sizes)"

TaskFactory = Callable[[Any, BertConfig, Path], Task]


class RunModel:
    """What one call of a script has in hand; its phases are `training.run.Run`'s."""

    backend: Backend
    tensors: dict[str, np.ndarray]
    train_examples_count: int  # of a run that trains; rank 0 counts them
    resume_step: int  # 0: from the start

    def __init__(
        self,
        settings: CommonSettings,
        backend_name: str,
        make_task: TaskFactory,
        processes: Processes,
        record: RunRecord,
    ) -> None:
        """Reads the checkpoint, the config and the vocabulary; the frameworks are not imported yet.

        Args:
            make_task: builds the task from the settings of its script, the model's config and vocabulary file.
            processes: all of them make the same calls; only rank 0 writes into the output folder.
            record: is told the phases.
        """
        self.record = record
        record.enter("load")
        self.settings, self.backend_name, self.processes = settings, backend_name, processes
        self.started_with = processes.size  # the number of processes that training was started with
        self.folder = RunFolder(settings.output_dir, backend_name, settings.keep_checkpoints, self.card)
        self.scored: tuple[str, dict[str, float]] = ("", {})  # the checkpoint that was scored last, and its scores
        start = processes.share(start_of(settings) if processes.is_first else None, "start")
        self.checkpoint = self._load(start) if start else Checkpoint(tensors={}, source="random weights")
        # The checkpoint of the model in hand, which is exported: that of the start until one is saved.
        self.result = self.start = start
        self.config = config_of(settings, self.checkpoint)
        self.vocab_file = vocab_file_of(settings, self.checkpoint)
        settings = self.settings = lower_case_of(settings, self.checkpoint)
        self.task = make_task(settings, self.config, self.vocab_file)
        self.config = config_with_labels(self.config, self.task, self.checkpoint)
        if start and not settings.do_calib:
            settings = self.settings = self._as_calibrated(str(start))
        self.mode = self._mode()
        if settings.quant_exclude:
            self.mode = exclude(self.mode, settings.quant_exclude, self.config.num_hidden_layers)
            if settings.if_quant or settings.do_calib:
                logger.info("left in float by --quant_exclude: %s", ", ".join(sorted(self.mode.excluded)))
        self.ranges = dict(self.checkpoint.ranges)
        record.note(start=self.checkpoint.source, mode=self.mode_name)

    @property
    def mode_name(self) -> str:
        """What the run quantizes to, for records: the mode, "dynamic", or "fp32"."""
        settings = self.settings
        if getattr(settings, "quant_scheme", "static") == "dynamic":
            return "dynamic"
        return self.mode.name if settings.if_quant or settings.do_calib else "fp32"

    def card(self, name: str, mode: str | None = None, scores: dict[str, float] | None = None) -> str:
        """The model card of a checkpoint of this run; its scores, if given none, where it was the last to be scored."""
        return make_card(self._card(name, mode, scores))

    def _card(self, name: str, mode: str | None = None, scores: dict[str, float] | None = None) -> Card:
        settings = self.settings
        if scores is None:
            # The best is saved at once when it has been scored, under the name of its step.
            scores = self.scored[1] if self.scored[0] == name or name.endswith(f"-{BEST}") else {}
        mode = mode or ("fp32" if self.mode_name == "dynamic" else self.mode_name)
        if settings.do_calib and settings.do_train and not settings.if_quant and not name.endswith("-calibrated"):
            mode = "fp32"
        start, command = settings.init_checkpoint or "random weights", self.record.values["command"]
        return checkpoint_card(name, settings, self.config, self.task, mode, self.backend_name, start, command, scores)

    def write_card(self, name: str, scores: dict[str, float]) -> None:
        """Puts scores into the card of a checkpoint that this run wrote."""
        self.scored = (name, scores)
        self.folder.write_card(self.folder.folder / name)
        if self.settings.dialect == "pytorch" or self.mode.learns_ranges:
            self._write_folder_card(name)

    def _write_folder_card(self, name: str) -> None:
        """The card beside a model in the output folder itself: the twin's file, or q8bert's int8 file."""
        write_card(self.folder.folder, make_card(folder_card(self._card(name), name, self.settings)))

    def _ranges_now(self) -> dict[str, np.ndarray]:
        """The ranges that belong to the backend's weights: where training finds them, those alone."""
        return (self.backend.ranges() if self.mode.learns_ranges else {}) or self.ranges

    def use_saved(self, path: Path) -> None:
        """Puts another trained model of the same config, from the output folder, into the backend."""
        read = load_checkpoint(str(path)) if self.processes.is_first else None
        checkpoint = share_checkpoint(self.processes, read, self.config, self.vocab_file)
        self.ranges = dict(checkpoint.ranges)
        self.tensors = self._complete_tensors(checkpoint, self.config, new_head_allowed=False)
        self.backend.load(self.tensors)
        # With its own ranges: those of the model that was there before would be saved with its weights.
        self._quantize(checkpoint.source)

    def load_other_model(self, checkpoint: Checkpoint) -> Backend:
        """A backend of its own with another fine-tuned model that reads the same input, such as a teacher."""
        config = teacher_config(checkpoint, self.config, self.vocab_file, self.settings.max_seq_length)
        config = config_with_labels(config, self.task, checkpoint)
        backend = self._make_backend(config)
        tensors = self._complete_tensors(checkpoint, config, False, ": a teacher must have the data's")
        self.processes.check_equal(tensors, f"{checkpoint.source} is not the same for all processes")
        backend.load(tensors)
        return backend

    def as_checkpoint(self) -> Checkpoint:
        """The backend's weights with everything that is saved beside them."""
        lower = {"do_lower_case": str(self.settings.do_lower_case).lower()}
        return Checkpoint(
            tensors=self.backend.tensors(),
            ranges=self._ranges_now(),
            config=self.config,
            source=self.checkpoint.source,
            vocab_file=self.vocab_file,
            metadata=self.checkpoint.metadata | lower,
        )

    def fingerprint(self, started_with: int | None = None) -> dict:
        """Everything that shapes the result of training, for telling this run from another."""
        started_with = started_with or self.started_with
        values = self.task.training_fingerprint()
        values |= {"backend": self.backend_name, "steps": self._total_steps(started_with), PROCESSES: started_with}
        if started_with > 1:
            values["scale_learning_rate"] = self.settings.scale_learning_rate
        return settings_fingerprint(self.settings, self.mode) | model_fingerprint(self.config, self.vocab_file) | values

    def _load(self, source: str) -> Checkpoint:
        return load_checkpoint(source)

    def _as_calibrated(self, start: str) -> CommonSettings:
        """The settings with the mode, and the quantizers left in float, that the checkpoint was calibrated for.

        Flags that were given stay; so does a mode of single settings.
        """
        settings, source = self.settings, self.checkpoint.source
        beside = self.checkpoint.fetched_into or start
        found = read_calibration(beside, self.checkpoint.ranges) if self.processes.is_first else None
        calibration = self.processes.share(found, "calibration")
        mode = calibrated_mode(calibration)
        if mode not in MODE_NAMES or settings.quant_mode not in MODE_NAMES:
            return settings
        changes: dict = {}
        if "quant_mode" not in settings.explicit and mode != settings.quant_mode:
            changes["quant_mode"] = mode
            if settings.export is not None and settings.export["quant_mode"] is not None:
                changes["export"] = settings.export | {"quant_mode": mode}
        excluded = calibrated_exclusion(calibration, changes.get("quant_mode", settings.quant_mode), source)
        if excluded and "quant_exclude" not in settings.explicit:
            changes["quant_exclude"] = tuple(excluded)
        if changes and (settings.if_quant or "export" in changes):
            told = ", ".join(f"--{name}={changes[name]}" for name in ("quant_mode",) if name in changes)
            left = f"{len(excluded)} quantizers in float" if "quant_exclude" in changes else ""
            logger.info("as %s was calibrated: %s", source, " and ".join(filter(None, (told, left))))
        return dataclasses.replace(settings, **changes)

    def _mode(self) -> Mode:
        if self.settings.custom_mode is not None:
            return custom_mode(**self.settings.custom_mode)
        return get_mode(self.settings.quant_mode or "ft2")

    def _total_steps(self, started_with: int | None = None) -> int:
        settings = self.settings
        batch = self._global_batch_size(started_with)
        return number_of_steps(self.train_examples_count, batch, settings.num_train_epochs, settings.max_steps)

    def _global_batch_size(self, started_with: int | None = None) -> int:
        """Rows of a step over all processes that the run was started with."""
        return (
            self.settings.train_batch_size * self.settings.num_accumulation_steps * (started_with or self.started_with)
        )

    def _make_backend(self, config: BertConfig, distillation: DistillationSettings | None = None):
        settings = self.settings
        return create_backend(
            self.backend_name,
            config,
            self.task.head,
            RuntimeSettings(settings.device, settings.use_fp16, settings.use_xla, loss_scale=settings.loss_scale),
            OptimizerSettings(
                epsilon=settings.adam_epsilon,
                weight_decay=settings.weight_decay,
                max_grad_norm=settings.max_grad_norm,
            ),
            distillation,
            self.task.num_labels,
        )

    def _load_backend(self) -> None:
        settings = self.settings
        distillation = None
        if settings.distillation:
            distillation = DistillationSettings(
                settings.distillation_loss,
                settings.distillation_temperature,
                settings.distillation_loss_scale,
                settings.max_seq_length,
            )
            idle = [
                f"--{name}" for name in ("distillation_loss", "distillation_temperature") if name in settings.explicit
            ]
            if self.task.num_labels == 1 and idle:
                logger.warning("warning: %s in a regression, which learns the teacher's values", no_effect(idle))
        # A new head makes sense where it is trained, or where only ranges are wanted (calibration before QAT).
        new_head = settings.do_train or (settings.do_calib and not settings.predicts and settings.export is None)
        if not self.checkpoint.tensors and settings.do_train:
            self.checkpoint = random_checkpoint(self.config, self.task.head, settings.seed, self.task.num_labels)
        self.tensors = self._complete_tensors(self.checkpoint, self.config, new_head, NEW_HEAD)
        self._check_ranges()
        self.processes.check_equal(
            self.tensors | self.ranges, f"{self.checkpoint.source} is not the same for all processes"
        )
        self.backend = self._make_backend(self.config, distillation)
        self.backend.load(self.tensors)
        device = self.backend.describe_device()
        self.record.note(device=device)
        logger.info("%s", device)

    def _check_ranges(self) -> None:
        """Before the framework is loaded and anything predicted: UserError where ranges are missing or do not fit."""
        settings = self.settings
        needed = settings.if_quant and (settings.predicts or settings.do_train) and not settings.do_calib
        if needed and not (self.mode.learns_ranges and settings.do_train):
            select_ranges(self.ranges, self.tensors, self.mode, self.checkpoint.source)

    def _complete_tensors(self, checkpoint: Checkpoint, config: BertConfig, new_head_allowed: bool, advice: str = ""):
        task, settings = self.task, self.settings
        if task.num_labels is not None:
            # Of the checkpoint that training or calibration begins with: a teacher's head, or a saved one, must fit.
            replaces = new_head_allowed and getattr(settings, "ignore_mismatched_sizes", False)
            checkpoint = fit_head(checkpoint, task.num_labels, replaces, advice)
        return complete_tensors(checkpoint, config, task.head, settings.seed, new_head_allowed, task.num_labels)

    def _find_resume_point(self) -> None:
        """Rank 0 alone looks: on other machines the output folder may be empty."""
        found = None
        if self.processes.is_first:
            found = find_resume_point(self.folder, self.fingerprint, self.processes.size)
        self.resume_step, self.started_with = self.processes.share(found, "resume point")
        if self.started_with != self.processes.size:
            change = describe_change(self.started_with, self.processes.size, self._global_batch_size())
            logger.warning("warning: %s", change)

    def _load_backend_for_resume(self) -> None:
        checkpoint, state = self.folder.load(self.resume_step) if self.processes.is_first else (None, None)
        self.checkpoint = share_checkpoint(self.processes, checkpoint, self.config, self.vocab_file)
        self.ranges = dict(self.checkpoint.ranges)
        self._load_backend()
        here = self.backend.place()
        before = state.fingerprint.get(DEVICE, here) if state else here
        if before != here:
            logger.warning(
                "warning: the run was started on %s and goes on on %s, which rounds otherwise: it will not end with "
                "the bits of an unbroken run", before, here,
            )  # fmt: skip
        optimizer = self.processes.share_arrays(state.optimizer if state else {}, "optimizer")
        try:
            self.backend.load_optimizer_state(optimizer)
        except UserError as error:
            state_path = self.folder.state_path(self.resume_step)
            raise UserError(f"cannot resume: {state_path} does not fit the model: {error}") from error
        logger.info("resuming from %s", self.folder.path(self.resume_step))

    def _finish_saves(self) -> None:
        self.folder.mark_latest(self.resume_step)
        self._save_twin_file()

    def _quantize(self, source: str, training: bool = False) -> None:
        """Turns fake quantization on under --if_quant, off without."""
        if self.settings.if_quant:
            if self.mode.learns_ranges and training and not self.resume_step:
                selected = {}  # training finds them; ranges that a calibration left are of another scheme
            else:
                selected = select_ranges(self.ranges, self.tensors, self.mode, source)
            self.backend.set_quantization(self.mode, selected, self.resume_step if training else 0)
            logger.info("fake quantization is on: mode %s", self.mode.name)
            return
        self.backend.set_quantization(None, {})
        if self.ranges:  # else nobody expects it
            logger.info("fake quantization is off, for want of --if_quant: the calibrated ranges are not used")

    def _teacher(self) -> Backend | None:
        settings = self.settings
        return self.load_other_model(load_checkpoint(str(settings.teacher))) if settings.distillation else None

    def _save_twin_file(self) -> None:
        """In the PyTorch twin's dialect, its pytorch_model.bin with `_amax` buffers, which its commands go on from."""
        if self.settings.dialect == "pytorch":
            write_fastertransformer(Path(self.settings.output_dir) / TWIN_FILE, self.as_checkpoint())
            self._write_folder_card(Path(str(self.result)).name)
