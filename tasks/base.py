"""What the scripts need from a task, whatever the task is.

A task reads the user's files, turns them into features (integer arrays of token ids) and turns a model's outputs back
into answers, files and scores. It knows nothing of models or frameworks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Outputs = Mapping[str, np.ndarray | Sequence[np.ndarray]]
"""A model's outputs by name: one float row per feature, in order; of logits per position, a row may be cut or padded
beyond the feature's length."""


class Features(ABC):
    """Model inputs of a data set: N rows of tokens of different lengths, made into batches on demand.

    Attribute `lengths`: int32 [N], number of tokens of each row with its special tokens, without padding.
    """

    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    @abstractmethod
    def batch(self, indexes: Sequence[int] | np.ndarray, length: int | None = None) -> dict[str, np.ndarray]:
        """Rows `indexes` padded to `length` tokens; by default to the longest of them.

        Returns int32 arrays by name: "input_ids", "input_mask" (1 for tokens, 0 for padding), "segment_ids", each
        [B, length]; with labels also what the task trains on, such as "start_positions" and "end_positions" [B].
        Raises ValueError where a row is longer than `length`.
        """


@dataclass(frozen=True)
class PredictionSet:
    """One set of rows to predict: the questions of a file, a dev set, a test set.

    Attributes: `name` ("dev", "dev_mm", "test"); `rows`, what they are and of what, for messages ("windows of
    dev.json"); `features` makes the rows; `finish` takes the outputs for them and returns the scores, which are empty
    where the right answers are not known, and writes the answers into a folder and says into which files, or writes
    nothing where the folder is None; `answers` gives what the last call of `finish` found: by question id the text, by
    number of the row the class, or the value of a regression.
    """

    name: str
    rows: str
    features: Callable[[], Features]
    finish: Callable[[Outputs, Path | None], dict[str, float]]
    answers: Callable[[], Mapping[Any, Any]]
    has_labels: bool = True

    def judge(self, outputs: Outputs) -> tuple[Mapping[Any, Any], dict[str, float]]:
        """The answers and the scores of these outputs; writes nothing and names no files."""
        scores = self.finish(outputs, None)
        return self.answers(), scores


class Task(ABC):
    """One data set and how it is scored.

    Attributes: `name`, for messages ("squad"); `head`, the model's output layer: "question_answering" (outputs
    "start_logits" and "end_logits", [S] per row) or "classification" (output "logits", [num_labels] per row);
    `num_labels`, the classes of a classification head, 1 for a regression, None for question answering;
    `label_names`, in the order of the logits, None where there are none.
    """

    name: str
    head: str
    num_labels: int | None = None
    label_names: list[str] | None = None

    @property
    @abstractmethod
    def train_examples_count(self) -> int:
        """Number of training examples; the number of training steps is computed from it, not from the features."""

    @abstractmethod
    def train_features(self) -> Features:
        """Features with labels of the whole training file, in the order of the file."""

    @abstractmethod
    def training_fingerprint(self) -> dict[str, object]:
        """Everything that shapes `train_features()`, as values that JSON holds: checksums of files, settings."""

    @abstractmethod
    def calibration_features(self, count: int) -> Features:
        """Features of `count` training examples (all, where there are fewer), chosen by a fixed shuffle."""

    @abstractmethod
    def prediction_sets(self) -> list[PredictionSet]:
        """What a prediction has to go through, in order."""

    @property
    @abstractmethod
    def part(self) -> str:
        """Which part of its data is predicted, where a limit cuts it: "the first 32 examples"; "" where it is all.

        Scores of a part are not the data set's, and are never told without it.
        """

    @abstractmethod
    def first_examples(self, count: int) -> Task:
        """The same task, but for predicting only the first `count` examples of every prediction set, for a check."""

    @abstractmethod
    def main_score(self, scores: Mapping[str, float]) -> float:
        """The one score that tells which of several checkpoints is the best: higher is better."""

    @abstractmethod
    def write_scores(self, scores: Mapping[str, float], folder: Path) -> None:
        """Writes the scores of all prediction sets together into a folder."""
