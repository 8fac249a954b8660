"""Texts as model inputs: [CLS] text [SEP], or [CLS] text [SEP] second text [SEP]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.base import Features
from tasks.classification_examples import ClassificationExamples
from tasks.tokenization import TokenizedTexts, Tokenizer, offsets_of
from twinquant.errors import UserError


@dataclass
class ClassificationFeatures(Features):
    """N rows of tokens, end to end.

    ids: int32 [tokens], with special tokens; offsets: int64 [N + 1], row i owns tokens offsets[i]:offsets[i + 1].
    first_lengths: int32 [N], tokens of [CLS] text [SEP]; what follows has segment id 1. labels: int32 [N] class
    indexes, or label_values: float32 [N] of a regression; both None where the labels are unknown. truncated, empty:
    number of rows that were cut to max_seq_length, and of rows with a text that has no token. pad_id: id of [PAD].
    """

    ids: np.ndarray
    offsets: np.ndarray
    first_lengths: np.ndarray
    labels: np.ndarray | None
    label_values: np.ndarray | None
    truncated: int
    empty: int
    pad_id: int

    def __post_init__(self) -> None:
        self.lengths = np.diff(self.offsets).astype(np.int32)

    def batch(self, indexes: Sequence[int] | np.ndarray, length: int | None = None) -> dict[str, np.ndarray]:
        """See `Features.batch`; with "labels" int32 [B] or "label_values" float32 [B] where they are known."""
        rows = np.asarray(indexes, np.int64)
        longest = int(self.lengths[rows].max(initial=0))
        length = longest if length is None else length
        if longest > length:
            raise ValueError(f"a row has {longest} tokens, but the batch is to be {length} tokens long")
        position = np.arange(length, dtype=np.int64)[None, :]  # [1, S]
        is_token = position < self.lengths[rows][:, None]  # [B, S]
        input_ids = np.full((len(rows), length), self.pad_id, np.int32)
        input_ids[is_token] = self.ids[(self.offsets[rows][:, None] + position)[is_token]]
        features = {
            "input_ids": input_ids,
            "input_mask": is_token.astype(np.int32),
            "segment_ids": (is_token & (position >= self.first_lengths[rows][:, None])).astype(np.int32),
        }
        if self.labels is not None:
            features["labels"] = self.labels[rows]
        if self.label_values is not None:
            features["label_values"] = self.label_values[rows]
        return features


def check_max_seq_length(max_seq_length: int, max_position_embeddings: int | None = None) -> None:
    """Raise UserError where this length (in tokens) leaves no room for two texts or exceeds the model's positions."""
    if max_seq_length < 5:
        raise UserError(
            f"--max_seq_length is {max_seq_length}; expected at least 5, for three special tokens and a token of each "
            "text"
        )
    if max_position_embeddings is not None and max_seq_length > max_position_embeddings:
        raise UserError(
            f"--max_seq_length {max_seq_length} is more than the {max_position_embeddings} positions the model has "
            "(max_position_embeddings)"
        )


def make_classification_features(
    examples: ClassificationExamples, tokenizer: Tokenizer, max_seq_length: int = 128
) -> ClassificationFeatures:
    """The rows of all examples, in their order; texts that are too long lose tokens at their end.

    Of a pair the longer text loses tokens first (see `longest_first`).
    """
    first = tokenizer.encode_texts(examples.texts)
    first_counts = np.diff(first.offsets)  # [N]
    if examples.second_texts is None:
        first_kept = np.minimum(first_counts, max_seq_length - 2)
        lengths, truncated, empty = first_kept + 2, first_kept < first_counts, first_counts == 0
    else:
        second = tokenizer.encode_texts(examples.second_texts)
        second_counts = np.diff(second.offsets)
        first_kept, second_kept = longest_first(first_counts, second_counts, max_seq_length - 3)
        lengths = first_kept + second_kept + 3
        truncated = (first_kept < first_counts) | (second_kept < second_counts)
        empty = (first_counts == 0) | (second_counts == 0)
    offsets = offsets_of(lengths)
    ids = np.full(offsets[-1], tokenizer.sep_id, np.int32)
    ids[offsets[:-1]] = tokenizer.cls_id
    _place(ids, offsets[:-1] + 1, first, first_kept)
    if examples.second_texts is not None:
        _place(ids, offsets[:-1] + first_kept + 2, second, second_kept)
    labels = examples.labels
    is_class = labels is not None and np.issubdtype(labels.dtype, np.integer)
    return ClassificationFeatures(
        ids=ids,
        offsets=offsets,
        first_lengths=(first_kept + 2).astype(np.int32),
        labels=labels if is_class else None,
        label_values=None if is_class else labels,
        truncated=int(truncated.sum()),
        empty=int(empty.sum()),
        pad_id=tokenizer.pad_id,
    )


def longest_first(first: np.ndarray, second: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """How many tokens of each text of a pair are kept, so that together they are `room` at most: int64 [N] twice.

    `first`, `second`: int [N], the lengths. As the library `tokenizers` (and so transformers 5) truncates: the longer
    text is cut first; where both must be, each keeps half, and the longer one, or the second of equals, the odd token.
    """
    first_is_shorter = first <= second
    shorter, longer = np.minimum(first, second), np.maximum(first, second)
    shorter_kept = np.minimum(shorter, room // 2)
    longer_kept = np.minimum(longer, room - shorter_kept)
    return (
        np.where(first_is_shorter, shorter_kept, longer_kept),
        np.where(first_is_shorter, longer_kept, shorter_kept),
    )


def _place(ids: np.ndarray, begin: np.ndarray, texts: TokenizedTexts, counts: np.ndarray) -> None:
    """Writes the first counts[i] tokens of every text i to ids[begin[i]:]."""
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    ids[np.repeat(begin, counts) + within] = texts.ids[np.repeat(texts.offsets[:-1], counts) + within]
