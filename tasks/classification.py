"""Classification and regression of texts as a task: examples of a source in, features and scored predictions out."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path

from tasks.base import Outputs, PredictionSet, Task
from tasks.classification_examples import ClassificationExamples, first, select
from tasks.classification_features import ClassificationFeatures, check_max_seq_length, make_classification_features
from tasks.classification_metrics import class_report
from tasks.classification_outputs import (
    Predictions,
    predictions_from_logits,
    write_predicted_labels,
    write_score_files,
)
from tasks.classification_source import ClassificationSource
from tasks.feature_cache import cached_features, checksum_key
from tasks.tokenization import load_tokenizer
from twinquant.errors import UserError
from twinquant.files import make_folder, write_bytes_atomically

logger = logging.getLogger("twinquant")


class ClassificationTask(Task):
    """A GLUE task or one's own data.

    The arguments are run_glue.py's flags of the same names. Further: `source` of the examples;
    `max_position_embeddings` and `vocab_size` of the model, to be checked against the length and the vocabulary;
    `cache_dir`, where features are kept between runs (None: nowhere); `overwrite_cache`, to make them anew; `do_eval`
    and `do_predict`, whether the prediction sets hold the source's evaluation sets and its test sets. Settings and
    vocabulary are checked at once; so are one's own classes, which the files tell. Raises UserError for what cannot be
    used.

    Attribute `predictions`: what `finish` found last, by the name of the prediction set.
    """

    head = "classification"

    def __init__(
        self,
        *,
        source: ClassificationSource,
        vocab_file: str | Path,
        do_lower_case: bool = True,
        max_seq_length: int = 128,
        cache_dir: str | Path | None = None,
        overwrite_cache: bool = False,
        max_position_embeddings: int | None = None,
        vocab_size: int | None = None,
        max_train_samples: int | None = None,
        max_eval_samples: int | None = None,
        max_predict_samples: int | None = None,
        do_eval: bool = True,
        do_predict: bool = False,
    ) -> None:
        check_max_seq_length(max_seq_length, max_position_embeddings)
        for flag, count in (
            ("--max_train_samples", max_train_samples),
            ("--max_eval_samples", max_eval_samples),
            ("--max_predict_samples", max_predict_samples),
        ):
            if count is not None and count < 1:
                raise UserError(f"{flag} is {count}; expected at least 1")
        self.tokenizer = load_tokenizer(vocab_file, do_lower_case, vocab_size)
        self.source = source
        self.name = source.name
        self.label_names = source.label_names
        self.num_labels = 1 if self.label_names is None else len(self.label_names)
        self.predictions: dict[str, Predictions] = {}
        self._reports: dict[str, str] = {}
        self._vocab_file = vocab_file
        self._max_seq_length = max_seq_length
        self._cache_dir = cache_dir
        self._overwrite_cache = overwrite_cache
        self._max_samples = {"train": max_train_samples, "dev": max_eval_samples, "test": max_predict_samples}
        self._do_eval, self._do_predict = do_eval, do_predict
        self._features: dict[str, ClassificationFeatures] = {}

    @cached_property
    def train_examples(self) -> ClassificationExamples:
        """The training examples, the first `max_train_samples` of them."""
        return first(self.source.train(), self._max_samples["train"])

    @property
    def train_examples_count(self) -> int:
        """Number of training examples."""
        return len(self.train_examples)

    def train_features(self) -> ClassificationFeatures:
        """Rows of all training examples, with labels.

        The files to be predicted later are read first: their faults shall show before the training, not after.
        """
        self.prediction_sets()
        return self._set_features("train", self.train_examples)

    def training_fingerprint(self) -> dict[str, object]:
        """The training examples' checksum, the classes, lower-casing and the length of rows."""
        return {
            "train_examples": self.train_examples.checksum(),
            "label_names": self.label_names,
            "do_lower_case": self.tokenizer.do_lower_case,
            "max_seq_length": self._max_seq_length,
        }

    def calibration_features(self, count: int) -> ClassificationFeatures:
        """Rows of `count` training examples, chosen as run_squad.py chooses its questions."""
        return self._cached(select(self.train_examples, count))

    def prediction_sets(self) -> list[PredictionSet]:
        """The evaluation sets, "dev" and "dev_mm", then the test sets, "test" and "test_mm"."""
        return [
            PredictionSet(
                name,
                f"rows of {examples.source}",
                partial(self._set_features, name, examples),
                partial(self._finish, name, examples),
                partial(self._answers, name),
                examples.labels is not None,
            )
            for name, examples in self._sets_to_predict.items()
        ]

    @property
    def part(self) -> str:
        """ "the first 32 examples", of each set where there are several, or ""."""
        whole = self._whole_sets
        cut = {len(examples) for name, examples in self._sets_to_predict.items() if len(examples) < len(whole[name])}
        return f"the first {max(cut)} examples" if cut else ""

    def first_examples(self, count: int) -> ClassificationTask:
        """The same task with only the first `count` examples of every set; they are not kept between runs."""
        task = copy.copy(self)
        task.__dict__.pop("_sets_to_predict", None)
        task._features, task.predictions, task._cache_dir = {}, {}, None
        task._max_samples = {kind: min(count, limit or count) for kind, limit in self._max_samples.items()}
        return task

    def main_score(self, scores: Mapping[str, float]) -> float:
        """The main metric of the dev set; where that was not scored, of the mismatched or the test set."""
        keys = [self.source.main_metric + ending for ending in ("", "_mm", "_test")]
        return scores[next((key for key in keys if key in scores), keys[0])]

    def write_scores(self, scores: Mapping[str, float], folder: Path) -> None:
        """Writes eval_results.txt and eval_results.json; nothing where there are no scores, to keep earlier ones.

        Also says precision, recall and F1 of each class, of the sets that were finished last. A check or an evaluation
        between two training steps, which finishes sets for its own ends, does not get here.
        """
        for source, report in self._reports.items():
            logger.info("%s:\n%s", source, report)
        self._reports.clear()
        if scores:
            make_folder(folder)
            write_score_files(scores, folder)

    @cached_property
    def _whole_sets(self) -> dict[str, ClassificationExamples]:
        sets = []
        if self._do_eval:
            sets.append(("dev", self.source.evaluation_sets()))
        if self._do_predict:
            sets.append(("test", self.source.test_sets()))
        return {
            f"{kind}_{suffix}" if suffix else kind: examples
            for kind, by_suffix in sets
            for suffix, examples in by_suffix.items()
        }

    @cached_property
    def _sets_to_predict(self) -> dict[str, ClassificationExamples]:
        limits = self._max_samples
        return {name: first(examples, limits[name.partition("_")[0]]) for name, examples in self._whole_sets.items()}

    def _finish(
        self, set_name: str, examples: ClassificationExamples, outputs: Outputs, folder: Path | None
    ) -> dict[str, float]:
        """Writes the predictions of a set; returns its scores, keys ending in "_mm" and "_test" where it is such a set.

        `outputs`: "logits", a float row [num_labels] for each example. Files: predictions_<set>.json; for one's own
        data classification_report.txt; for test sets predict_results_<task>.txt and the benchmark's submission file.
        """
        predicted = predictions_from_logits(outputs["logits"], len(examples), self.num_labels or 1)
        self.predictions[set_name] = Predictions(predicted, examples.labels)
        kind, _, suffix = set_name.partition("_")
        if folder is not None:
            make_folder(folder)
            written = [folder / f"predictions_{set_name}.json"]
            self.predictions[set_name].write(written[0])
            if kind == "test":
                task = self.name + (f"-{suffix}" if suffix and not self.name.endswith(f"-{suffix}") else "")
                written.append(folder / f"predict_results_{task}.txt")
                write_predicted_labels(written[-1], predicted, self.label_names)
                submission = self.source.submission_file(suffix)
                if submission is not None:
                    written.append(folder / submission)
                    write_predicted_labels(written[-1], predicted, self.label_names, examples.ids)
            logger.info("predictions: %s", ", ".join(map(str, written)))
        if examples.labels is None:
            return {}
        ending = "_test" * (kind == "test")
        if self.source.reports_classes and self.label_names is not None:
            report = class_report(examples.labels, predicted, self.label_names)
            self._reports[examples.source] = report
            if folder is not None:
                write_bytes_atomically(folder / f"classification_report{ending}.txt", report.encode("utf-8"))
        scores = self.source.metrics(examples.labels, predicted)
        return {key + (f"_{suffix}" if suffix else "") + ending: value for key, value in scores.items()}

    def _answers(self, set_name: str) -> dict[int, int | float]:
        return dict(enumerate(self.predictions[set_name].predictions.tolist()))

    def _set_features(self, name: str, examples: ClassificationExamples) -> ClassificationFeatures:
        """The features of a set, made once; says how many texts are empty or were cut."""
        if name not in self._features:
            features = self._features[name] = self._cached(examples)
            if features.empty:
                logger.warning("%s: %d row(s) have an empty text; they are kept", examples.source, features.empty)
            if features.truncated:
                logger.warning(
                    "%s: %d row(s) are longer than --max_seq_length %d tokens and were cut",
                    examples.source, features.truncated, self._max_seq_length,
                )  # fmt: skip
        return self._features[name]

    def _make(self, examples: ClassificationExamples) -> ClassificationFeatures:
        return make_classification_features(examples, self.tokenizer, self._max_seq_length)

    def _cached(self, examples: ClassificationExamples) -> ClassificationFeatures:
        if self._cache_dir is None:
            return self._make(examples)
        key = checksum_key(
            examples.checksum(),
            self._vocab_file,
            do_lower_case=self.tokenizer.do_lower_case,
            max_seq_length=self._max_seq_length,
        )
        return cached_features(
            self._cache_dir, key, lambda: self._make(examples), self._overwrite_cache, ClassificationFeatures
        )
