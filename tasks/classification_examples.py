"""Texts with labels, as columns."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.squad_examples import CALIBRATION_SEED


@dataclass(frozen=True)
class ClassificationExamples:
    """N texts, or pairs of texts.

    texts: N strings. second_texts: N strings, None for single texts. labels: int32 [N], index of the class; for a
    regression float32 [N], the value; None where the file does not tell. ids: N strings that the file identifies its
    rows by, None where a row is known by its number. source: the file, for messages.
    """

    texts: list[str]
    second_texts: list[str] | None
    labels: np.ndarray | None
    source: str
    ids: list[str] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def checksum(self) -> str:
        """SHA-256, in 64 hex digits, over the texts and labels."""
        digest = hashlib.sha256(json.dumps([self.texts, self.second_texts]).encode("ascii"))
        if self.labels is not None:
            digest.update(str(self.labels.dtype).encode("ascii") + self.labels.tobytes())
        return digest.hexdigest()


def take(examples: ClassificationExamples, indexes: Sequence[int]) -> ClassificationExamples:
    """The examples at `indexes`, in that order."""
    seconds, ids = examples.second_texts, examples.ids
    return ClassificationExamples(
        texts=[examples.texts[index] for index in indexes],
        second_texts=None if seconds is None else [seconds[index] for index in indexes],
        labels=None if examples.labels is None else examples.labels[np.asarray(indexes, np.int64)],
        source=examples.source,
        ids=None if ids is None else [ids[index] for index in indexes],
    )


def first(examples: ClassificationExamples, count: int | None) -> ClassificationExamples:
    """The first min(count, N) examples; all where the count is None."""
    return examples if count is None or count >= len(examples) else take(examples, range(count))


def select(examples: ClassificationExamples, count: int, seed: int = CALIBRATION_SEED) -> ClassificationExamples:
    """The first min(count, N) examples after the shuffle that run_squad.py calibrates with."""
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)
    return take(examples, order[:count])
