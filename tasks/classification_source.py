"""Where the examples of a classification task come from, and how its predictions are scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from tasks.classification_examples import ClassificationExamples


class ClassificationSource(ABC):
    """Labeled texts of one task. Files are read when first needed, and once.

    Sets of examples have a suffix: "" for the task's own set, "mm" for MNLI's mismatched one.

    Attributes: `name`, in the names of files and in messages ("mrpc"); `reports_classes`, whether precision, recall and
    F1 of each class are reported too.
    """

    name: str
    reports_classes: bool = False

    @property
    @abstractmethod
    def label_names(self) -> list[str] | None:
        """The classes in the order of the logits; None for a regression."""

    @property
    @abstractmethod
    def main_metric(self) -> str:
        """The key of the one score that tells which of several models is the best: higher is better."""

    @property
    def is_regression(self) -> bool:
        """Whether the labels are numbers to be predicted as such."""
        return self.label_names is None

    @abstractmethod
    def train(self) -> ClassificationExamples:
        """The training examples, with labels."""

    @abstractmethod
    def evaluation_sets(self) -> Mapping[str, ClassificationExamples]:
        """The sets to score, with labels, by suffix."""

    @abstractmethod
    def test_sets(self) -> Mapping[str, ClassificationExamples]:
        """The sets to predict, by suffix; their labels may be unknown."""

    @abstractmethod
    def metrics(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        """Scores by key: of class indexes int [N], or of values float [N] for a regression."""

    def submission_file(self, suffix: str) -> str | None:
        """Name of the file in which a leaderboard wants the predictions of a test set; None where there is none."""
        return None
