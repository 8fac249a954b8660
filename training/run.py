"""The phases of a script in order: load, calibrate, train, predict. Only here do tasks and backends meet."""

import logging
import time
from functools import partial
from pathlib import Path

from quantization.histogram import Observer
from quantization.ranges import calibration_report, select_ranges
from training.calibration import find_ranges, observe
from training.evaluations import Evaluations, describe_scores, remove_evaluations
from training.events import FOLDER, EventFile, TrainingCurves, clipped_tags
from training.loop import LoopSettings, TrainingLoop
from training.prediction import Predictor, check_same_features, predict_all
from training.resume import DEVICE
from training.run_model import RunModel
from training.schedule import LearningRateSchedule
from training.start import check_start_stays
from twinquant.errors import UserError
from twinquant.files import make_folder, write_json_atomically

logger = logging.getLogger("twinquant")


class Run(RunModel):
    """One call of a script: its settings, its task, its backend and the checkpoint it works on."""

    evaluations: Evaluations | None = None
    events: EventFile | None = None  # on rank 0, with --tensorboard

    def execute(self) -> dict[str, float]:
        """Runs the phases that the flags ask for; returns the scores of the prediction, if there are any."""
        settings = self.settings
        make_folder(settings.output_dir)
        self.record.save()
        self.resume_step = 0
        if settings.do_train:
            # From rank 0: the others need not read the whole file.
            count = self.task.train_examples_count if self.processes.is_first else None
            self.train_examples_count = self.processes.share(count, "examples")
        if settings.do_train and not settings.overwrite_output_dir:
            self._find_resume_point()
        if settings.do_train and not self.resume_step:
            self.processes.first(lambda: check_start_stays(settings, self.folder))
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
        self.events = self.processes.first(self._open_events)
        if settings.do_calib and not self.resume_step:
            self.record.enter("calibrate")
            self.calibrate()
        if settings.do_train:
            self.record.enter("train")
            self.train()
        if self.events is not None:
            self.events.close()
        scores = {}
        if settings.predicts:
            self.record.enter("predict")
            scores = self.predict()
        self.record.note(checkpoint=self.result, part=self.task.part if scores else "")
        return scores

    def export(self) -> None:
        """Exports the model that the phases ended with, where the flags ask for it; rank 0 alone.

        Apart from `execute`, so that a model that cannot be exported, a UserError, costs none of the other results.
        """
        if self.settings.export is not None:
            self.record.enter("export")
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
        self.result = str(self.folder.path("calibrated"))
        self.processes.first(lambda: self._find_ranges(observer))
        self.ranges = self.processes.share_arrays(self.ranges, "ranges")

    def _find_ranges(self, observer: Observer) -> None:
        settings = self.settings
        started = time.monotonic()
        self.ranges, clipped = find_ranges(
            observer, self.tensors, self.config, self.mode, settings.calib_method, settings.percentile
        )
        logger.info(
            "%d ranges found by %s in %.1f s", len(self.ranges), settings.calib_method, time.monotonic() - started
        )
        latest = self.folder.latest_step()
        path = self.folder.save("calibrated", self.as_checkpoint())
        if latest is not None and not settings.do_train:
            logger.warning(
                "warning: %s was the newest in --output_dir; a prediction with this --output_dir takes %s from now on. "
                "Calibrate into a folder of its own to keep both apart.", latest.name, path.name,
            )  # fmt: skip
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
        if settings.calib_report is not None:
            self._write_calibration_report(Path(settings.calib_report), observer, report)
        if self.events is not None:
            enabled = {scope for scope, entry in report["quantizers"].items() if entry["enabled"]}
            self.events.write(0, clipped_tags({scope: clipped[scope] for scope in clipped if scope in enabled}))

    def _write_calibration_report(self, folder: Path, observer: Observer, report: dict) -> None:
        # matplotlib is needed only here.
        from reports.calibration_numbers import calibration_numbers
        from reports.calibration_page import write_calibration_report

        settings, layers = self.settings, self.config.num_hidden_layers
        numbers = calibration_numbers(observer, self.ranges, self.mode, layers, settings.percentile)
        facts = {name: value for name, value in report.items() if name != "quantizers"}
        page = write_calibration_report(folder, numbers, facts | {"percentile": settings.percentile})
        logger.info("saved %s", page)

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
        if self.ranges and not settings.if_quant:
            # With other weights they clip, or are too wide, without a word.
            logger.info("the ranges are of the weights before training: the trained model is saved without them")
            self.ranges = {}
        warmup = settings.warmup_steps
        if warmup is None:
            warmup = int(total * settings.warmup_proportion)
        features = self.processes.in_turns(self.task.train_features)
        check_same_features(features, self.processes)
        learning_rate = settings.learning_rate
        if settings.scale_learning_rate and self.started_with > 1:
            learning_rate *= self.started_with
            logger.info("the learning rate %g is multiplied by %d processes", settings.learning_rate, self.started_with)
        schedule = LearningRateSchedule(learning_rate, total, warmup)
        if warmup >= total:
            logger.warning(
                "warning: the learning rate rises for --warmup_steps %d, and the run has %d steps: it ends at %g, of "
                "%g", warmup, total, schedule(total - 1), learning_rate,
            )  # fmt: skip
        loop = TrainingLoop(
            self.backend,
            features,
            schedule,
            self.folder,
            LoopSettings(
                total_steps=total,
                batch_size=settings.train_batch_size,
                global_batch=self._global_batch_size(),
                max_seq_length=settings.max_seq_length,
                pad_to_max_length=settings.pad_to_max_length or settings.use_xla,
                group_by_length=settings.group_by_length,
                seed=settings.seed,
                save_steps=settings.save_checkpoints_steps,
                epoch_rows=self.train_examples_count,
                save_per_epoch=settings.save_per_epoch,
                evaluate_per_epoch=settings.evaluate_per_epoch,
                log_steps=settings.log_freq,
                fingerprint=self.fingerprint() | {DEVICE: self.backend.place()},
                evaluate_steps=settings.evaluate_steps or 0,
            ),
            self.as_checkpoint,
            self._teacher(),
            self._evaluate,
            self.processes,
            TrainingCurves(self.events, settings.log_freq, total) if self.events is not None else None,
        )
        if self.processes.is_first and not self.resume_step and (self.folder.steps() or self.folder.other.steps()):
            logger.warning("--overwrite_output_dir: the training checkpoints of an earlier run are removed")
            self.folder.remove_all()
        if self.processes.is_first and not self.resume_step:
            remove_evaluations(self.folder, (self.start, settings.init_checkpoint, settings.teacher))
        self.evaluations = Evaluations(self.folder, self.task, self.resume_step)
        logger.info("training %d steps from step %d", total, self.resume_step)
        self.record.note(training={"from_step": self.resume_step, "to_step": total})
        loop.run(self.resume_step)
        self.tensors = self.backend.tensors()
        self.ranges = self._ranges_now()
        self.processes.first(self._save_twin_file)

    def predict(self) -> dict[str, float]:
        """Predicts every set of the task, writes the answers and their scores, and returns the scores."""
        self._quantize(self.checkpoint.source)
        folder = Path(self.settings.output_dir)
        scores = self.score(self.backend, folder)
        self.processes.first(lambda: self._write_scores(scores, folder))
        return scores

    def _write_scores(self, scores: dict[str, float], folder: Path) -> None:
        self.task.write_scores(scores, folder)
        # Not of a model that another run made and described.
        if self.settings.do_train or self.settings.do_calib:
            self.write_card(Path(str(self.result)).name, scores)

    def predict_checkpoints(self) -> dict[str, float]:
        """Scores every checkpoint of the output folder; the names of the scores end in `_<step>`."""
        settings = self.settings
        scores: dict[str, float] = {}
        for step in self.saved_steps():
            self.use_saved(self.folder.path(step))
            folder = Path(settings.output_dir) / f"evaluation-{step}"
            found = self.score(self.backend, folder, labeled_only=True)
            self.processes.first(partial(self.task.write_scores, found, folder))
            logger.info("%s: %s", self.folder.path(step).name, describe_scores(found))
            scores |= {f"{name}_{step}": value for name, value in found.items()}
        return scores

    def saved_steps(self) -> list[int]:
        """The steps of the checkpoints that --eval_all_checkpoints evaluates; UserError where there are none."""
        steps = self.processes.share(self.folder.steps(), "steps")
        if not steps:
            raise UserError(f"--eval_all_checkpoints: {self.folder.folder} holds no model.ckpt-<step>")
        return steps

    def score(
        self, model: Predictor, folder: Path | None, labeled_only: bool = False, with_tests: bool = True
    ) -> dict[str, float]:
        """Predicts the task's sets with a model; the answers are written into `folder`, if one is given.

        Args:
            model: anything that predicts as a backend does.
            labeled_only: leave out the sets whose right answers are not known.
            with_tests: test sets too; between steps of a training nothing is to be learned from them.

        Returns:
            The scores, on rank 0; the other processes know none.
        """
        settings = self.settings
        scores: dict[str, float] = {}
        for prediction_set in self.task.prediction_sets():
            if labeled_only and not prediction_set.has_labels:
                continue
            if not with_tests and prediction_set.name.partition("_")[0] == "test":
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
                "predicted %d %s in %.1f s, %.1f per second",
                len(features), prediction_set.rows, seconds, len(features) / seconds,
            )  # fmt: skip
            scores |= self.processes.first(partial(prediction_set.finish, outputs, folder)) or {}
        return scores

    def _evaluate(self, step: int) -> None:
        scores = self.score(self.backend, None, labeled_only=True, with_tests=False)
        self.scored = (self.folder.path(step).name, scores)
        if self.events is not None and scores:
            self.events.write(step, {f"eval/{name}": value for name, value in scores.items()})
        if self.evaluations is not None:
            self.processes.first(partial(self.evaluations.add, step, scores, self.as_checkpoint))

    def _open_events(self) -> EventFile | None:
        """A run that is resumed replaces the points after the checkpoint that it goes on from, a new one all."""
        settings = self.settings
        if not settings.tensorboard or (self.resume_step and self.resume_step >= self._total_steps()):
            return None
        folder = settings.logging_dir or Path(settings.output_dir) / FOLDER
        file = EventFile(folder, self.resume_step + 1 if self.resume_step else 0)
        logger.info("curves for TensorBoard: tensorboard --logdir %s", folder)
        return file

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
            self.record.values["command"],
        )
