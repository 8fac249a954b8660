"""The files that a classification leaves: predictions, what a leaderboard wants, reports and scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from twinquant.errors import UserError
from twinquant.files import write_bytes_atomically, write_json_atomically


@dataclass(frozen=True)
class Predictions:
    """What a model says about one set.

    predictions: int64 [N] class indexes, or float32 [N] values of a regression. labels: the right ones, int32 or
    float32 [N]; None where they are unknown.
    """

    predictions: np.ndarray
    labels: np.ndarray | None

    def write(self, path: Path) -> None:
        """Writes {"labels": [...] or null, "predictions": [...]}, in the order of the set."""
        labels = None if self.labels is None else self.labels.tolist()
        write_json_atomically(path, {"labels": labels, "predictions": self.predictions.tolist()})


def predictions_from_logits(rows: np.ndarray | Sequence[np.ndarray], count: int, num_labels: int) -> np.ndarray:
    """The class of the highest logit, int64 [count]; for `num_labels` 1, a regression, the output itself, float32.

    `rows`: float [count, num_labels], or as many rows. Raises ValueError for another shape, UserError for logits that
    are not finite.
    """
    logits = np.stack(list(rows)) if len(rows) else np.zeros((0, num_labels), np.float32)
    if logits.shape != (count, num_labels):
        raise ValueError(f"logits have the shape {logits.shape}; expected {(count, num_labels)}")
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise UserError(
            f"the model's logits for example {bad[0]} are not finite (NaN or infinity); expected numbers, so the "
            "weights or the quantization ranges must be damaged"
        )
    return logits[:, 0].astype(np.float32) if num_labels == 1 else logits.argmax(axis=1)


def write_predicted_labels(
    path: Path, predictions: np.ndarray, label_names: Sequence[str] | None, ids: Sequence[str] | None = None
) -> None:
    """Writes "index<TAB>prediction" lines under a header: names of classes, or values with 3 digits.

    `ids` are the indexes; without them they count from 0.
    """
    if label_names is None:
        values = [f"{value:3.3f}" for value in predictions.tolist()]
    else:
        values = [label_names[index] for index in predictions.tolist()]
    indexes = [str(index) for index in range(len(values))] if ids is None else ids
    lines = [f"{index}\t{value}\n" for index, value in zip(indexes, values, strict=True)]
    write_bytes_atomically(path, "".join(["index\tprediction\n", *lines]).encode("utf-8"))


def write_score_files(scores: Mapping[str, float], folder: Path) -> None:
    """Writes eval_results.txt, a line "key = value" for each score, and eval_results.json, both sorted by key."""
    ordered = {key: scores[key] for key in sorted(scores)}
    text = "".join(f"{key} = {value}\n" for key, value in ordered.items())
    write_bytes_atomically(folder / "eval_results.txt", text.encode("utf-8"))
    write_json_atomically(folder / "eval_results.json", ordered)
