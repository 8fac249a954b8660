"""Tiny backends of both heads and their dynamic models, for the tests of dynamic quantization."""

from functools import cache

import numpy as np
from tiny_bert import make_backend, make_batch, tiny_config, tiny_tensors

from backends.base import Backend
from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING
from training.initialization import random_checkpoint

CONFIG = tiny_config()
BATCH = make_batch(CONFIG, [20, 7, 13], 24)
HEADS = {QUESTION_ANSWERING: None, CLASSIFICATION: 3}  # and their number of labels


def tensors_of(head: str) -> dict[str, np.ndarray]:
    """Random weights for the head, spread widely."""
    if head == QUESTION_ANSWERING:
        return tiny_tensors(CONFIG)
    return tiny_tensors(CONFIG, head=None) | {
        name: array
        for name, array in random_checkpoint(CONFIG, head, 1, HEADS[head]).tensors.items()
        if name.startswith(("bert/pooler", "output_"))
    }


@cache
def float_backend(head: str) -> Backend:
    """One backend per head, shared by all tests, which only predict."""
    return make_backend("pytorch", CONFIG, tensors_of(head), head=head, num_labels=HEADS[head])


def largest_difference(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """Over all logits of tokens that are not padding, as a share of the largest expected magnitude."""
    assert list(found) == list(expected)
    differences, largest = [], 0.0
    for name, logits in expected.items():
        assert found[name].shape == logits.shape and found[name].dtype == np.float32
        tokens = BATCH["input_mask"].astype(bool) if logits.shape == BATCH["input_mask"].shape else slice(None)
        differences.append(np.abs(found[name] - logits)[tokens].max())
        largest = max(largest, np.abs(logits[tokens]).max())
    return float(max(differences) / largest)
