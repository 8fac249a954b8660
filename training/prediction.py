"""Logits of a whole data set, in batches of similar length."""

from typing import Protocol

import numpy as np

from backends.base import Batch
from tasks.base import Features
from training.order import padded_length
from training.processes import ALONE, Processes
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
    processes: Processes = ALONE,
    bar: str | None = None,
) -> dict[str, list[np.ndarray]]:
    """Logits of every row, in the order of `features`.

    Rows are sorted by length, the longest first (so that a lack of memory shows at once), and a batch is padded to its
    longest row, rounded up as the backend needs it. The last batch repeats its last row, so that every batch has the
    same size. Of several processes each predicts every so many-th batch.

    Args:
        longest: max_seq_length, the length to pad to with `pad_to_max_length`.
        bar: the name of a progress bar, in whose place a log has no lines; None: "predict", with lines.

    Returns:
        By output name, one float32 array per row: [padded length] of its batch, or [num_labels]; all rows, on every
        process.

    Raises:
        UserError: the processes have not the same rows.
    """
    check_same_features(features, processes)
    multiple = getattr(model, "length_multiple", 1)  # other models than backends are there for CPUs alone
    order = np.argsort(-features.lengths, kind="stable")
    outputs: dict[str, list[np.ndarray]] = {}
    with Progress(bar or "predict", len(features), "row", quiet=quiet, lines=bar is None) as progress:
        starts = range(0, len(order), batch_size)
        for start in starts[processes.rank :: processes.size]:
            rows = order[start : start + batch_size]
            indexes = np.concatenate([rows, np.repeat(rows[-1:], batch_size - len(rows))])
            length = padded_length(features.lengths[rows], longest, multiple, pad_to_max_length)
            for name, logits in model.predict(model_inputs(features.batch(indexes, length))).items():
                kept = outputs.setdefault(name, [np.empty(0, np.float32)] * len(features))
                for row, values in zip(rows, logits, strict=False):
                    kept[row] = values.copy()  # not a view: it would keep the whole batch
            progress.advance(min(len(order) - progress.done, len(rows) * processes.size))
    return _of_all(outputs, order, batch_size, processes)


def _of_all(
    outputs: dict[str, list[np.ndarray]], order: np.ndarray, batch_size: int, processes: Processes
) -> dict[str, list[np.ndarray]]:
    """The rows of all processes, on every process."""
    if processes.size == 1:
        return outputs
    batch_of = np.empty(len(order), np.int64)
    batch_of[order] = np.arange(len(order)) // batch_size
    mine = [np.flatnonzero(batch_of % processes.size == rank) for rank in range(processes.size)]
    # A process without a batch, since there are fewer than processes, does not know the names.
    names = max(processes.gather(sorted(outputs), "output names"), key=len)
    for name in names:
        kept = outputs.setdefault(name, [np.empty(0, np.float32)] * len(order))
        own = [kept[row] for row in mine[processes.rank]]
        lengths = processes.gather([len(values) for values in own], "lengths of outputs")
        data = processes.gather_bytes(
            np.concatenate([np.empty(0, np.float32), *own], dtype=np.float32).tobytes(), "outputs"
        )
        for rows, sizes, values in zip(mine, lengths, data, strict=True):
            parts = np.split(np.frombuffer(values, np.float32), np.cumsum(sizes)[:-1]) if sizes else []
            for row, part in zip(rows, parts, strict=True):
                kept[row] = part
    return outputs


def check_same_features(features: Features, processes: Processes) -> None:
    """Raises UserError, on every process, where they have not read the same data."""
    if processes.size > 1:
        values = {f"{name}.ids": getattr(value, "ids", None) for name, value in vars(features).items()} | vars(features)
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        processes.check_equal(arrays, "the processes were started with different data")


def model_inputs(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The part of a batch that a prediction needs, without labels."""
    return {name: batch[name] for name in ("input_ids", "input_mask", "segment_ids")}
