"""What the scripts need from a task, whatever the task is.

A task reads the user's files, turns them into features (integer arrays of token ids) and turns a model's outputs back
into answers, files and scores. It knows nothing of models or frameworks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np


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


class Task(ABC):
    """One data set and how it is scored.

    Attributes: `name`, for messages ("squad"); `head`, the model's output layer: "question_answering" (outputs
    "start_logits" and "end_logits", [S] per row) or "classification" (output "logits", [classes] per row).
    """

    name: str
    head: str

    @property
    @abstractmethod
    def train_examples_count(self) -> int:
        """Number of training examples; the number of training steps is computed from it, not from the features."""

    @abstractmethod
    def train_features(self) -> Features:
        """Features with labels of the whole training file, in the order of the file."""

    @abstractmethod
    def calibration_features(self, count: int) -> Features:
        """Features of `count` training examples (all, where there are fewer), chosen by a fixed shuffle."""

    @abstractmethod
    def predict_features(self) -> Features:
        """Features of the file to predict, in the order of the file."""

    @abstractmethod
    def finish(self, outputs: Mapping[str, np.ndarray | Sequence[np.ndarray]]) -> dict[str, float]:
        """Write the answers of `predict_features()` to the output folder and return their scores.

        `outputs`: per output name one float row per feature, in order; a row may be cut or padded beyond the feature's
        length. The scores are empty where the file does not tell the right answers.
        """
