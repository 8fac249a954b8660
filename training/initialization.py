"""From a checkpoint to every tensor a model needs: what is missing is named, a new head comes from the seed."""

import dataclasses
import logging
import zlib

import numpy as np

from checkpoints.checkpoint import Checkpoint, match
from checkpoints.config import BertConfig
from checkpoints.names import expected_tensors
from twinquant.errors import UserError

logger = logging.getLogger("twinquant")

_CLASSES, _CLASSES_BIAS = "output_weights", "output_bias"


def complete_tensors(
    checkpoint: Checkpoint,
    config: BertConfig,
    head: str,
    seed: int,
    new_head_allowed: bool,
    num_labels: int | None = None,
) -> dict[str, np.ndarray]:
    """The model's tensors by canonical name, float32, in the model's order.

    Args:
        checkpoint: read from disk; its tensors may be more than the task needs.
        head: "question_answering" or "classification" (with `num_labels`); its tensors, the pooler included, may be
            missing where `new_head_allowed` (before training), and are then drawn from the seed, the same for every
            backend.

    Raises:
        UserError: tensors are missing or of the wrong shape; all are named.
    """
    expected = expected_tensors(config, head, num_labels)
    head_names = set(expected) - set(expected_tensors(config, None))
    report = match(checkpoint, expected, optional=head_names)
    if report.missing and not new_head_allowed:
        raise UserError(
            f"{checkpoint.source} has no {', '.join(report.missing)}: the task's head was never trained; "
            "fine-tune first (--do_train) or name a fine-tuned checkpoint"
        )
    if report.unused:
        logger.info("not used of %s: %s", checkpoint.source, ", ".join(report.unused))
    if report.missing:
        logger.info("not from %s but initialized from the seed: %s", checkpoint.source, ", ".join(report.missing))
    tensors = {}
    for name, shape in expected.items():
        if name in report.missing:
            tensors[name] = _initial(name, shape, config.initializer_range, seed)
        else:
            tensors[name] = np.asarray(checkpoint.tensors[name], np.float32)
    return tensors


def fit_head(checkpoint: Checkpoint, num_labels: int, replaces: bool, advice: str) -> Checkpoint:
    """The checkpoint, without its classification head where that is for another number of classes.

    Args:
        num_labels: what the data has, 1 for a regression.
        replaces: a new head may take its place, as with ignore_mismatched_sizes of transformers.
        advice: how the sentence ends where it may not.

    Raises UserError where it may not.
    """
    weights = checkpoint.tensors.get(_CLASSES)
    if weights is None or weights.ndim != 2 or len(weights) == num_labels:
        return checkpoint
    classes = checkpoint.label_names or []
    known = f" ({', '.join(classes)})" if 1 < len(classes) == len(weights) else ""
    found = (
        f"the head of {checkpoint.source} is for {_outputs(len(weights))}{known}, the data has {_outputs(num_labels)}"
    )
    if not replaces:
        raise UserError(found + advice)
    logger.info("%s: a new head takes its place", found)
    kept = {name: tensor for name, tensor in checkpoint.tensors.items() if name not in (_CLASSES, _CLASSES_BIAS)}
    return dataclasses.replace(checkpoint, tensors=kept)


def _outputs(count: int) -> str:
    return f"{count} classes" if count > 1 else "values (a regression)"


def _initial(name: str, shape: tuple[int, ...], standard_deviation: float, seed: int) -> np.ndarray:
    """Zeros for a bias, else a normal distribution cut at two standard deviations (google-research/bert)."""
    if name.endswith("bias"):
        return np.zeros(shape, np.float32)
    generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    values = generator.standard_normal(shape)
    while (outside := np.abs(values) > 2.0).any():
        values[outside] = generator.standard_normal(int(outside.sum()))
    return (values * standard_deviation).astype(np.float32)


def random_checkpoint(
    config: BertConfig, head: str | None, seed: int, num_labels: int | None = None, source: str = "random weights"
) -> Checkpoint:
    """An untrained model for tests and benchmarks: normal kernels and embeddings, unit gamma, zero beta and bias."""
    tensors: dict[str, np.ndarray] = {}
    for name, shape in expected_tensors(config, head, num_labels).items():
        if name.endswith("gamma"):
            tensors[name] = np.ones(shape, np.float32)
        elif name.endswith("beta"):
            tensors[name] = np.zeros(shape, np.float32)
        else:
            tensors[name] = _initial(name, shape, config.initializer_range, seed)
    return Checkpoint(tensors=tensors, ranges={}, config=config, source=source)
