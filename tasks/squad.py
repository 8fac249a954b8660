"""Question answering on SQuAD files as a task: files in, features and scored answers out."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.base import Outputs, PredictionSet, Task
from tasks.feature_cache import cached_features, features_key
from tasks.metrics import squad_v1_metrics, squad_v2_metrics
from tasks.squad_answers import predict_answers
from tasks.squad_examples import SquadExamples, has_answers, read_squad_examples, select
from tasks.squad_features import SquadFeatures, check_lengths, make_squad_features, windows_overlap
from tasks.tokenization import load_tokenizer
from twinquant.errors import UserError
from twinquant.files import make_folder, sha256_of_file, write_json_atomically

logger = logging.getLogger("twinquant")


class SquadTask(Task):
    """SQuAD 1.1, or 2.0 with `version_2_with_negative`.

    The arguments are run_squad.py's flags of the same names. Further: `max_position_embeddings` and `vocab_size` of the
    model, to be checked against the lengths and the vocabulary; `max_predict_examples`, to predict only that many
    questions; `cache_dir`, where features are kept between runs (None: nowhere); `overwrite_cache`, to make them anew.
    Files are read when first needed, but settings and vocabulary are checked at once. Raises UserError for what cannot
    be used.
    """

    name = "squad"
    head = "question_answering"

    def __init__(
        self,
        *,
        vocab_file: str | Path,
        train_file: str | Path | None = None,
        predict_file: str | Path | None = None,
        do_lower_case: bool = True,
        max_seq_length: int = 384,
        doc_stride: int = 128,
        max_query_length: int = 64,
        n_best_size: int = 20,
        max_answer_length: int = 30,
        version_2_with_negative: bool = False,
        null_score_diff_threshold: float = 0.0,
        cache_dir: str | Path | None = None,
        overwrite_cache: bool = False,
        verbose_logging: bool = False,
        max_position_embeddings: int | None = None,
        vocab_size: int | None = None,
        max_predict_examples: int | None = None,
    ) -> None:
        check_lengths(max_seq_length, max_query_length, doc_stride, max_position_embeddings)
        for flag, value in (("--n_best_size", n_best_size), ("--max_answer_length", max_answer_length)):
            if value < 1:
                raise UserError(f"{flag} is {value}; expected at least 1")
        if max_predict_examples is not None and max_predict_examples < 1:
            raise UserError(f"the number of examples to predict is {max_predict_examples}; expected at least 1")
        if not windows_overlap(max_seq_length, max_query_length, doc_stride):
            logger.warning(
                "--doc_stride %d with --max_seq_length %d and --max_query_length %d: windows of the longest questions "
                "do not overlap, and an answer across their border is in neither",
                doc_stride, max_seq_length, max_query_length,
            )  # fmt: skip
        self.tokenizer = load_tokenizer(vocab_file, do_lower_case, vocab_size)
        self._vocab_file = vocab_file
        self._train_file = train_file
        self._predict_file = predict_file
        self._window = {
            "max_seq_length": max_seq_length,
            "doc_stride": doc_stride,
            "max_query_length": max_query_length,
        }
        self._answer: dict[str, Any] = {
            "n_best_size": n_best_size,
            "max_answer_length": max_answer_length,
            "null_score_diff_threshold": null_score_diff_threshold,
            "verbose": verbose_logging,
        }
        self._version_2 = version_2_with_negative
        self._cache_dir = cache_dir
        self._overwrite_cache = overwrite_cache
        self._max_predict_examples = max_predict_examples
        self.predictions: dict[str, str] = {}  # by question id, of the last finish

    @cached_property
    def train_examples(self) -> SquadExamples:
        """The questions of the training file whose answer can be found."""
        return read_squad_examples(_given(self._train_file, "--train_file"), True, self._version_2)

    @cached_property
    def predict_examples(self) -> SquadExamples:
        """The questions of the file to predict."""
        path = _given(self._predict_file, "--predict_file")
        return read_squad_examples(path, False, self._version_2, self._max_predict_examples)

    @property
    def train_examples_count(self) -> int:
        """Number of training questions, without those left out because their answer is not in the context."""
        return len(self.train_examples)

    def train_features(self) -> SquadFeatures:
        """Windows of all training questions, with start and end positions."""
        return self._train_features

    def training_fingerprint(self) -> dict[str, object]:
        """The training file's checksum, lower-casing and the windows' settings."""
        return {
            "train_file": sha256_of_file(_given(self._train_file, "--train_file")),
            "do_lower_case": self.tokenizer.do_lower_case,
            "version_2_with_negative": self._version_2,
            **self._window,
        }

    def calibration_features(self, count: int) -> SquadFeatures:
        """Windows of the `count` training questions that FasterTransformer would calibrate on."""
        path = _given(self._train_file, "--train_file")
        return self._cached(path, lambda: select(self.train_examples, count), is_training=True, calibration=count)

    def predict_features(self) -> SquadFeatures:
        """Windows of all questions to predict."""
        return self._predict_features

    def prediction_sets(self) -> list[PredictionSet]:
        """The one file to predict."""
        return [
            PredictionSet(
                "predict",
                f"windows of {self._predict_file}",
                self.predict_features,
                self.finish,
                lambda: self.predictions,
            )
        ]

    @property
    def part(self) -> str:
        """ "the first 32 questions", or ""."""
        return f"the first {len(self.predict_examples)} questions" if self.predict_examples.is_cut else ""

    def first_examples(self, count: int) -> SquadTask:
        """The same task with only the first `count` questions to predict; they are not kept between runs."""
        task = copy.copy(self)
        for made in ("predict_examples", "_predict_features"):
            task.__dict__.pop(made, None)
        task._max_predict_examples = min(count, self._max_predict_examples or count)
        task._cache_dir = None
        return task

    def finish(self, outputs: Outputs, folder: Path | None) -> dict[str, float]:
        """Write predictions.json, nbest_predictions.json and null_odds.json (2.0) into `folder`; return the scores.

        `outputs`: "start_logits" and "end_logits", a float row for each of `predict_features()`. The scores have
        "exact_match" and "f1", for 2.0 more (see `squad_v2_metrics`); there are none where the file has no answers.
        """
        examples = self.predict_examples
        answers = predict_answers(
            examples,
            self._predict_features,
            outputs["start_logits"],
            outputs["end_logits"],
            self.tokenizer,
            version_2_with_negative=self._version_2,
            **self._answer,
        )
        self.predictions = answers.predictions
        if folder is not None:
            make_folder(folder)
            logger.info("predictions: %s", ", ".join(map(str, answers.write(folder))))
        if not has_answers(examples):
            logger.info("%s has no answers, so the predictions are not scored", examples.source)
            return {}
        golds = dict(zip(examples.ids, examples.gold_answers, strict=True))
        if self._version_2:
            return squad_v2_metrics(golds, answers.predictions, answers.null_odds)
        return squad_v1_metrics(golds, answers.predictions)

    def exact_matches(self, predictions: Mapping[str, str]) -> dict[str, bool]:
        """Which answers are right, by question id, as the exact match counts; {} where the file has no answers.

        predictions: texts by question id, of every question.
        """
        examples = self.predict_examples
        if not has_answers(examples):
            return {}
        metrics = squad_v2_metrics if self._version_2 else squad_v1_metrics
        return {
            key: metrics({key: golds}, {key: predictions[key]})["exact_match"] == 100.0
            for key, golds in zip(examples.ids, examples.gold_answers, strict=True)
        }

    def main_score(self, scores: Mapping[str, float]) -> float:
        """F1."""
        return scores["f1"]

    def write_scores(self, scores: Mapping[str, float], folder: Path) -> None:
        """Writes eval_results.json; an empty one where the file has no answers."""
        write_json_atomically(folder / "eval_results.json", dict(scores))

    @cached_property
    def _train_features(self) -> SquadFeatures:
        path = _given(self._train_file, "--train_file")
        return self._cached(path, lambda: self.train_examples, is_training=True)

    @cached_property
    def _predict_features(self) -> SquadFeatures:
        path = _given(self._predict_file, "--predict_file")
        return self._cached(path, lambda: self.predict_examples, is_training=False)

    def _make(self, examples: SquadExamples) -> SquadFeatures:
        return make_squad_features(examples, self.tokenizer, **self._window)

    def _cached(
        self, path: str | Path, examples: Callable[[], SquadExamples], is_training: bool, **selection: int
    ) -> SquadFeatures:
        """Features from the cache; the file of `path` is read, by `examples`, only where they are not there."""
        if self._cache_dir is None:
            return self._make(examples())
        key = features_key(
            path,
            self._vocab_file,
            do_lower_case=self.tokenizer.do_lower_case,
            version_2_with_negative=self._version_2,
            is_training=is_training,
            max_examples=None if is_training else self._max_predict_examples,
            **self._window,
            **selection,
        )
        return cached_features(self._cache_dir, key, lambda: self._make(examples()), self._overwrite_cache)


def _given(path: str | Path | None, flag: str) -> str | Path:
    if path is None:
        raise UserError(f"{flag} is missing; expected a SQuAD JSON file")
    return path
