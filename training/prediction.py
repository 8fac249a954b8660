"""Logits of a whole data set, in batches of similar length."""

from typing import Protocol

import numpy as np

from backends.base import Batch
from tasks.base import Features
from training.order import padded_length
from training.progress import Progress


class Predictor(Protocol):
    """A backend, or another model that predicts as one does (see `Backend.predict`)."""

    def predict(self, batch: Batch) -> dict[str, np.ndarray]:
        """Logits by name for a batch without labels."""


def predict_all(
    model: Predictor,
    features: Features,
    batch_size: int,
    longest: int,
    pad_to_max_length: bool = False,
    quiet: bool = False,
) -> dict[str, list[np.ndarray]]:
    """Logits of every row, in the order of `features`.

    Rows are sorted by length, the longest first (so that a lack of memory shows at once), and a batch is padded to its
    longest row rounded up to 8. The last batch repeats its last row, so that every batch has the same size.

    Args:
        longest: max_seq_length, the length to pad to with `pad_to_max_length`.

    Returns:
        By output name, one float32 array per row: [padded length] of its batch, or [num_labels].
    """
    order = np.argsort(-features.lengths, kind="stable")
    outputs: dict[str, list[np.ndarray]] = {}
    with Progress("predict", len(features), "row", quiet=quiet) as progress:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            indexes = np.concatenate([rows, np.repeat(rows[-1:], batch_size - len(rows))])
            length = padded_length(features.lengths[rows], longest, pad_to_max_length)
            for name, logits in model.predict(model_inputs(features.batch(indexes, length))).items():
                kept = outputs.setdefault(name, [np.empty(0, np.float32)] * len(features))
                for row, values in zip(rows, logits, strict=False):
                    kept[row] = values.copy()  # not a view: it would keep the whole batch
            progress.advance(len(rows))
    return outputs


def model_inputs(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The part of a batch that a prediction needs, without labels."""
    return {name: batch[name] for name in ("input_ids", "input_mask", "segment_ids")}
