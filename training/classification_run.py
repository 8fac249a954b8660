"""run_glue.py's phases beyond those of `Run`: the best model, every checkpoint, a quantized model's fp32 parent."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backends.base import Backend
from checkpoints.checkpoint import Checkpoint, load_checkpoint
from checkpoints.names import CLASSIFICATION, head_of
from checkpoints.q8bert_file import FILE_NAME, read_q8bert, write_q8bert
from quantization.modes import Q8BERT, Mode, q8bert_mode
from tasks.classification import ClassificationTask
from tasks.classification_outputs import Predictions
from training.evaluations import BEST, describe_scores
from training.flips import report_flips
from training.run import Run
from twinquant.glue_flags import GlueSettings

logger = logging.getLogger("twinquant")

SAME_WEIGHTS = "the same weights in fp32"
INT8_FILE = "the weights of the int8 file with activations in fp32"


@dataclass(frozen=True)
class Parent:
    """The fp32 model that a quantized one is compared with: what to call it, its predictions by set, its scores."""

    name: str
    predictions: Mapping[str, Predictions]
    scores: Mapping[str, float]


class ClassificationRun(Run):
    """One call of run_glue.py."""

    settings: GlueSettings
    task: ClassificationTask

    def train(self) -> None:
        """Trains; under --load_best_model_at_end the best model takes the place of the last. q8bert: the int8 file."""
        super().train()
        if self.settings.load_best_model_at_end:
            self._load_best()
        if self.settings.quant_scheme == Q8BERT:
            path = Path(self.settings.output_dir) / FILE_NAME
            self.processes.first(lambda: self._write_q8bert(path))
            logger.info("saved %s, for --load_quantized_model", path)

    def _write_q8bert(self, path: Path) -> None:
        write_q8bert(path, self.as_checkpoint(), self.mode)
        self._write_folder_card(Path(str(self.result)).name)

    def _load(self, source: str) -> Checkpoint:
        """Under --load_quantized_model the int8 file in the folder of that name, and nothing else."""
        if not self.settings.load_quantized_model:
            return super()._load(source)
        folder = Path(source) if (Path(source) / FILE_NAME).exists() else Path(source).parent
        return read_q8bert(folder / FILE_NAME)

    def _mode(self) -> Mode:
        if self.settings.quant_scheme == Q8BERT:
            return q8bert_mode(self.settings.start_step, self.settings.ema_decay)
        return super()._mode()

    def predict(self) -> dict[str, float]:
        """Predicts and scores; a quantized model is compared with its fp32 parent, into flips.json."""
        settings = self.settings
        evaluates_all = settings.eval_all_checkpoints and settings.do_eval
        if evaluates_all:
            self.saved_steps()  # before all the predicting
        parent = self._predict_parent() if settings.if_quant else None
        scores = super().predict()
        if parent is not None and self.processes.is_first:
            report_flips(parent.predictions, self.task.predictions, parent.name, Path(settings.output_dir))
            if scores and parent.scores:
                found = {name: scores[name] for name in parent.scores if name in scores}
                logger.info(
                    "%s: %s; quantized, mode %s: %s",
                    parent.name, describe_scores(parent.scores), self.mode.name, describe_scores(found),
                )  # fmt: skip
        if evaluates_all:
            # After the rest: it leaves another checkpoint's weights in the backend.
            scores |= self.predict_checkpoints()
            self.processes.first(lambda: self.task.write_scores(scores, Path(settings.output_dir)))
        return scores

    def _load_best(self) -> None:
        best = self.processes.share(self.evaluations.best if self.evaluations else None, "best")
        path = self.folder.path(BEST)
        if best is None:
            logger.warning("--load_best_model_at_end: nothing was evaluated during training; the last model is used")
            return
        logger.info("the best model is that of step %d: %s", best["step"], path)
        self.use_saved(path)
        self.result = str(path)

    def _predict_parent(self) -> Parent | None:
        """Predicts and scores with the fp32 parent of a quantized model, into fp32/; None where there is none.

        That is, after training, the teacher or the fine-tuned model that the training began with; without training, the
        same weights without quantization.
        """
        settings = self.settings
        if not settings.do_train:
            self.backend.set_quantization(None, {})
            return self._score_parent(self.backend, INT8_FILE if settings.load_quantized_model else SAME_WEIGHTS)
        source = settings.teacher if settings.distillation else settings.init_checkpoint
        checkpoint = load_checkpoint(source) if source else None
        if checkpoint is None or head_of(checkpoint.tensors) != CLASSIFICATION:
            logger.info("there is no fp32 model to compare with: %s was not trained for classification", source)
            return None
        if len(checkpoint.tensors["output_weights"]) != self.task.num_labels:  # --ignore_mismatched_sizes
            logger.info("there is no fp32 model to compare with: %s was trained for other classes", source)
            return None
        return self._score_parent(self.load_other_model(checkpoint), checkpoint.source)

    def _score_parent(self, backend: Backend, name: str) -> Parent:
        logger.info("predicting with the fp32 parent, %s", name)
        folder = Path(self.settings.output_dir) / "fp32"
        scores = self.score(backend, folder, labeled_only=True)
        self.processes.first(lambda: self.task.write_scores(scores, folder))
        return Parent(name, dict(self.task.predictions), scores)
