"""The phases of a script in order: load, calibrate, train, predict. Only here do tasks and backends meet."""

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from backends import create_backend
from backends.base import Backend, DistillationSettings, OptimizerSettings, RuntimeSettings
from checkpoints.checkpoint import Checkpoint, load_checkpoint
from checkpoints.config import BertConfig
from checkpoints.fastertransformer import write_fastertransformer
from quantization.exclusion import exclude
from quantization.histogram import Observer
from quantization.modes import Mode, custom_mode, get_mode
from quantization.ranges import calibration_report, select_ranges
from tasks.base import Task
from training.calibration import find_ranges, observe
from training.evaluations import Evaluations, describe_scores
from training.initialization import complete_tensors, random_checkpoint
from training.loop import LoopSettings, TrainingLoop
from training.prediction import Predictor, check_same_features, predict_all
from training.processes import ALONE, Processes
from training.resume import (
    PROCESSES,
    describe_change,
    find_resume_point,
    model_fingerprint,
    settings_fingerprint,
    share_checkpoint,
)
from training.saves import RunFolder
from training.schedule import LearningRateSchedule, number_of_steps
from training.start import config_of, config_with_labels, start_of, vocab_file_of
from training.teacher import teacher_config
from twinquant.errors import UserError
from twinquant.files import make_folder, write_json_atomically
from twinquant.settings import CommonSettings

logger = logging.getLogger("twinquant")

TaskFactory = Callable[[BertConfig, Path], Task]


class Run:
    """One call of a script: its settings, its task, its backend and the checkpoint it works on."""

    backend: Backend
    tensors: dict[str, np.ndarray]
    evaluations: Evaluations | None = None

    def __init__(
        self, settings: CommonSettings, backend_name: str, make_task: TaskFactory, processes: Processes = ALONE
    ) -> None:
        """Reads the checkpoint, the config and the vocabulary; the frameworks are not imported yet.

        Args:
            make_task: builds the task from the model's config and vocabulary file.
            processes: all of them make the same calls; only rank 0 writes into the output folder.
        """
        self.settings, self.backend_name, self.processes = settings, backend_name, processes
        self.started_with = processes.size  # the number of processes that training was started with
        self.folder = RunFolder(settings.output_dir, backend_name, settings.keep_checkpoints)
        start = processes.share(start_of(settings) if processes.is_first else None, "start")
        self.checkpoint = self._load(start) if start else Checkpoint(tensors={}, source="random weights")
        # The checkpoint of the model in hand, which is exported: that of the start until one is saved.
        self.result = self.start = start
        self.config = config_of(settings, self.checkpoint)
        self.vocab_file = vocab_file_of(settings, self.checkpoint)
        self.task = make_task(self.config, self.vocab_file)
        self.config = config_with_labels(self.config, self.task, self.checkpoint)
        self.mode = self._mode()
        if settings.quant_exclude:
            self.mode = exclude(self.mode, settings.quant_exclude, self.config.num_hidden_layers)
            logger.info("left in float by --quant_exclude: %s", ", ".join(sorted(self.mode.excluded)))
        self.ranges = dict(self.checkpoint.ranges)

    def execute(self) -> dict[str, float]:
        """Runs the phases that the flags ask for; returns the scores of the prediction, if there are any."""
        settings = self.settings
        make_folder(settings.output_dir)
        self.resume_step = 0
        if settings.do_train:
            # From rank 0: the others need not read the whole file.
            count = self.task.train_examples_count if self.processes.is_first else None
            self.train_examples_count = self.processes.share(count, "examples")
        if settings.do_train and not settings.overwrite_output_dir:
            self._find_resume_point()
        if self.processes.is_first and (settings.do_train or settings.do_calib):
            # Not before a prediction alone, which may run beside a training that is writing into the same folder.
            self.folder.remove_leftovers()
        if self.resume_step:
            self._load_backend_for_resume()
        else:
            self._load_backend()
        if settings.export is not None:
            self._check_export()
        record = Path(settings.output_dir) / "settings.json"
        self.processes.first(lambda: write_json_atomically(record, settings.to_dict()))
        if settings.do_calib and not self.resume_step:
            self.calibrate()
        if settings.do_train:
            self.train()
        return self.predict() if settings.predicts else {}

    def export(self) -> None:
        """Exports the model that the phases ended with, where the flags ask for it; rank 0 alone.

        Apart from `execute`, so that a model that cannot be exported, a UserError, costs none of the other results.
        """
        if self.settings.export is not None:
            self.processes.first(self._export)

    def calibrate(self) -> None:
        """Finds all ranges, saves model.ckpt-calibrated and calibration.json."""
        settings = self.settings
        count = settings.calib_batch * settings.train_batch_size
        features = self.processes.in_turns(lambda: self.task.calibration_features(count))
        observer = observe(
            self.backend,
            features,
            settings.train_batch_size,
            settings.calib_batch,
            settings.max_seq_length,
            settings.calib_include_padding,
            self.processes,
        )
        self.processes.first(lambda: self._find_ranges(observer))
        self.ranges = self.processes.share_arrays(self.ranges, "ranges")
        self.result = str(self.folder.path("calibrated"))

    def _find_ranges(self, observer: Observer) -> None:
        settings = self.settings
        started = time.monotonic()
        self.ranges, clipped = find_ranges(
            observer, self.tensors, self.config, self.mode, settings.calib_method, settings.percentile
        )
        logger.info(
            "%d ranges found by %s in %.1f s", len(self.ranges), settings.calib_method, time.monotonic() - started
        )
        path = self.folder.save("calibrated", self.as_checkpoint())
        self._save_twin_file()
        method = {
            "calib_method": settings.calib_method,
            "percentile": settings.percentile if settings.calib_method == "percentile" else None,
            "batches": settings.calib_batch,
            "batch_size": settings.train_batch_size,
            "data": settings.train_file or getattr(settings, "data_dir", None),
            "padding_included": settings.calib_include_padding,
            "checkpoint": self.checkpoint.source,
        }
        report = calibration_report(self.ranges, clipped, method, self.config.num_hidden_layers, self.mode)
        write_json_atomically(Path(settings.output_dir) / "calibration.json", report)
        logger.info("saved %s and calibration.json", path)

    def train(self) -> None:
        """Fine-tunes, fake-quantized under --if_quant, towards a teacher's logits under --distillation."""
        settings = self.settings
        total = self._total_steps()
        self.result = str(self.folder.path(max(total, self.resume_step)))
        if self.resume_step >= total:
            logger.info("training is complete: %s is there already", self.folder.path(self.resume_step))
            self.evaluations = Evaluations(self.folder, self.task, self.resume_step)
            # The run that trained it may have been killed before these.
            self.processes.first(self._finish_saves)
            return
        self._quantize(self.checkpoint.source, training=True)
        warmup = settings.warmup_steps
        if warmup is None:
            warmup = int(total * settings.warmup_proportion)
        features = self.processes.in_turns(self.task.train_features)
        check_same_features(features, self.processes)
        learning_rate = settings.learning_rate
        if settings.scale_learning_rate and self.started_with > 1:
            learning_rate *= self.started_with
            logger.info("the learning rate %g is multiplied by %d processes", settings.learning_rate, self.started_with)
        loop = TrainingLoop(
            self.backend,
            features,
            LearningRateSchedule(learning_rate, total, min(warmup, total - 1)),
            self.folder,
            LoopSettings(
                total_steps=total,
                batch_size=settings.train_batch_size,
                global_batch=self._global_batch_size(),
                max_seq_length=settings.max_seq_length,
                pad_to_max_length=settings.pad_to_max_length or settings.use_xla,
                seed=settings.seed,
                save_steps=settings.save_checkpoints_steps,
                steps_per_epoch=self._steps_per_epoch() if settings.save_per_epoch else 0,
                log_steps=settings.log_freq,
                fingerprint=self.fingerprint(),
                evaluate_steps=self._evaluate_steps(),
            ),
            self.as_checkpoint,
            self._teacher(),
            self._evaluate,
            self.processes,
        )
        if self.processes.is_first and not self.resume_step and self.folder.steps():
            logger.warning("--overwrite_output_dir: the training checkpoints of an earlier run are removed")
            self.folder.remove_all()
        self.evaluations = Evaluations(self.folder, self.task, self.resume_step)
        logger.info("training %d steps from step %d", total, self.resume_step)
        loop.run(self.resume_step)
        self.tensors = self.backend.tensors()
        self.ranges = self._ranges_now()
        self.processes.first(self._save_twin_file)

    def predict(self) -> dict[str, float]:
        """Predicts every set of the task, writes the answers and their scores, and returns the scores."""
        self._quantize(self.checkpoint.source)
        folder = Path(self.settings.output_dir)
        scores = self.score(self.backend, folder)
        self.processes.first(lambda: self.task.write_scores(scores, folder))
        return scores

    def predict_checkpoints(self) -> dict[str, float]:
        """Scores every checkpoint of the output folder; the names of the scores end in `_<step>`."""
        settings = self.settings
        scores: dict[str, float] = {}
        steps = self.processes.share(self.folder.steps(), "steps")
        for step in steps:
            self.use_saved(self.folder.path(step))
            folder = Path(settings.output_dir) / f"evaluation-{step}"
            found = self.score(self.backend, folder, labeled_only=True)
            self.processes.first(partial(self.task.write_scores, found, folder))
            logger.info("%s: %s", self.folder.path(step).name, describe_scores(found))
            scores |= {f"{name}_{step}": value for name, value in found.items()}
        if not steps:
            raise UserError(f"--eval_all_checkpoints: {self.folder.folder} holds no model.ckpt-<step>")
        return scores

    def score(self, model: Predictor, folder: Path | None, labeled_only: bool = False) -> dict[str, float]:
        """Predicts the task's sets with a model; the answers are written into `folder`, if one is given.

        Args:
            model: anything that predicts as a backend does.
            labeled_only: leave out the sets whose right answers are not known.

        Returns:
            The scores, on rank 0; the other processes know none.
        """
        settings = self.settings
        scores: dict[str, float] = {}
        for prediction_set in self.task.prediction_sets():
            if labeled_only and not prediction_set.has_labels:
                continue
            features = self.processes.in_turns(prediction_set.features)
            started = time.monotonic()
            outputs = predict_all(
                model,
                features,
                settings.predict_batch_size,
                settings.max_seq_length,
                settings.pad_to_max_length or settings.use_xla,
                processes=self.processes,
            )
            seconds = time.monotonic() - started
            logger.info(
                "predicted %s: %d rows in %.1f s, %.1f rows/s",
                prediction_set.name, len(features), seconds, len(features) / seconds,
            )  # fmt: skip
            scores |= self.processes.first(partial(prediction_set.finish, outputs, folder)) or {}
        return scores

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
        backend = self._make_backend(config)
        tensors = self._complete_tensors(checkpoint, config, new_head_allowed=False)
        self.processes.check_equal(tensors, f"{checkpoint.source} is not the same for all processes")
        backend.load(tensors)
        return backend

    def _evaluate(self, step: int) -> None:
        scores = self.score(self.backend, None, labeled_only=True)
        if self.evaluations is not None:
            self.processes.first(partial(self.evaluations.add, step, scores, self.as_checkpoint))

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
        return settings_fingerprint(self.settings, self.mode) | model_fingerprint(self.config, self.vocab_file) | values

    def _load(self, source: str) -> Checkpoint:
        return load_checkpoint(source)

    def _mode(self) -> Mode:
        if self.settings.custom_mode is not None:
            return custom_mode(**self.settings.custom_mode)
        return get_mode(self.settings.quant_mode or "ft2")

    def _total_steps(self, started_with: int | None = None) -> int:
        settings = self.settings
        batch = self._global_batch_size(started_with)
        return number_of_steps(self.train_examples_count, batch, settings.num_train_epochs, settings.max_steps)

    def _steps_per_epoch(self) -> int:
        return max(1, self.train_examples_count // self._global_batch_size())

    def _evaluate_steps(self) -> int:
        """Steps between two evaluations during training; 0: none."""
        if self.settings.evaluate_per_epoch:
            return self._steps_per_epoch()
        return self.settings.evaluate_steps or 0

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
        # A new head makes sense where it is trained, or where only ranges are wanted (calibration before QAT).
        new_head = settings.do_train or (settings.do_calib and not settings.do_predict and settings.export is None)
        if not self.checkpoint.tensors and settings.do_train:
            self.checkpoint = random_checkpoint(self.config, self.task.head, settings.seed, self.task.num_labels)
        self.tensors = self._complete_tensors(self.checkpoint, self.config, new_head)
        self.processes.check_equal(
            self.tensors | self.ranges, f"{self.checkpoint.source} is not the same for all processes"
        )
        self.backend = self._make_backend(self.config, distillation)
        self.backend.load(self.tensors)
        logger.info("%s", self.backend.describe_device())

    def _complete_tensors(self, checkpoint: Checkpoint, config: BertConfig, new_head_allowed: bool):
        task = self.task
        return complete_tensors(checkpoint, config, task.head, self.settings.seed, new_head_allowed, task.num_labels)

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
        optimizer = self.processes.share_arrays(state.optimizer if state else {}, "optimizer")
        self.backend.load_optimizer_state(optimizer)
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
        else:
            self.backend.set_quantization(None, {})
            logger.info("fake quantization is off")

    def _check_export(self) -> None:
        """What would keep the model from being exported, before the phases that make it."""
        # onnx is needed only here and below.
        from export.after_run import check_places

        settings, choice = self.settings, self.settings.export or {}
        self.processes.first(lambda: check_places(settings, self.config, self.vocab_file))
        if choice["precision"] == "int8" and choice["quant_mode"] is not None and not settings.do_calib:
            select_ranges(self.ranges, self.tensors, self.mode, self.checkpoint.source)

    def _export(self) -> None:
        from export.after_run import export_result

        settings = self.settings
        has_data = settings.predicts or settings.predict_file is not None
        export_result(
            str(self.result),
            settings,
            self.backend_name,
            self.task.head,
            self.task.first_examples((settings.export or {})["check_examples"]) if has_data else None,
            settings.bert_config_file if self.result == self.start else None,
            self.vocab_file,
        )

    def _teacher(self) -> Backend | None:
        settings = self.settings
        return self.load_other_model(load_checkpoint(str(settings.teacher))) if settings.distillation else None

    def _save_twin_file(self) -> None:
        """In the PyTorch twin's dialect, its pytorch_model.bin with `_amax` buffers, which its commands go on from."""
        if self.settings.dialect == "pytorch":
            write_fastertransformer(Path(self.settings.output_dir) / "pytorch_model.bin", self.as_checkpoint())
