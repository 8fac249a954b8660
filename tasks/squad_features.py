"""SQuAD examples as model inputs: overlapping windows over each context, as in Google BERT's run_squad.py.

A row is [CLS] question [SEP] window [SEP]. The rows are not stored: each question and each context is kept once and a
window is three numbers (example, first context token, length), from which `batch` gathers the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.base import Features
from tasks.squad_examples import SquadExamples
from tasks.tokenization import TokenizedTexts, Tokenizer, offsets_of
from twinquant.errors import UserError


@dataclass
class SquadFeatures(Features):
    """N windows over E questions.

    contexts, questions: tokens of every paragraph and of every question (already cut to max_query_length).
    paragraph_index: int32 [E]. example_index, window_start, window_length: int32 [N]; a window holds the context tokens
    window_start : window_start + window_length. Windows of one example are consecutive and begin at
    first_window[example], int64 [E + 1]. start_positions, end_positions: int32 [N], row positions of the answer's first
    and last token, 0 where the window does not hold it; None for prediction. stride: context tokens from one window of
    an example to the next, int32 [E]. cls_id, sep_id, pad_id: ids of the special tokens.
    """

    contexts: TokenizedTexts
    questions: TokenizedTexts
    paragraph_index: np.ndarray
    example_index: np.ndarray
    window_start: np.ndarray
    window_length: np.ndarray
    first_window: np.ndarray
    stride: np.ndarray
    start_positions: np.ndarray | None
    end_positions: np.ndarray | None
    cls_id: int
    sep_id: int
    pad_id: int

    def __post_init__(self) -> None:
        self.question_lengths = np.diff(self.questions.offsets).astype(np.int32)[self.example_index]
        self.lengths = self.question_lengths + self.window_length + np.int32(3)

    def batch(self, indexes: Sequence[int] | np.ndarray, length: int | None = None) -> dict[str, np.ndarray]:
        """See `Features.batch`; with "start_positions" and "end_positions" where the features have answers."""
        rows = np.asarray(indexes, np.int64)
        longest = int(self.lengths[rows].max(initial=0))
        length = longest if length is None else length
        if longest > length:
            raise ValueError(f"a row has {longest} tokens, but the batch is to be {length} tokens long")
        position = np.arange(length, dtype=np.int64)[None, :]  # [1, S]
        lengths = self.lengths[rows][:, None]  # [B, 1], as all below
        question_length = self.question_lengths[rows][:, None]
        examples = self.example_index[rows]
        question_first = self.questions.offsets[examples][:, None]
        window_first = (self.contexts.offsets[self.paragraph_index[examples]] + self.window_start[rows])[:, None]

        in_question = (position >= 1) & (position <= question_length)
        in_window = (position >= question_length + 2) & (position < lengths - 1)
        input_ids = np.full((len(rows), length), self.pad_id, np.int32)
        input_ids[(position == question_length + 1) | (position == lengths - 1)] = self.sep_id
        input_ids[:, :1] = self.cls_id
        input_ids[in_question] = self.questions.ids[(question_first + position - 1)[in_question]]
        input_ids[in_window] = self.contexts.ids[(window_first + position - question_length - 2)[in_window]]
        input_mask = (position < lengths).astype(np.int32)
        features = {
            "input_ids": input_ids,
            "input_mask": input_mask,
            "segment_ids": (position > question_length + 1).astype(np.int32) * input_mask,
        }
        if self.start_positions is not None and self.end_positions is not None:
            features["start_positions"] = self.start_positions[rows]
            features["end_positions"] = self.end_positions[rows]
        return features

    def context_tokens(self, rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Index into `contexts.ids` and `contexts.words` of row positions inside windows; the arrays broadcast."""
        first = self.contexts.offsets[self.paragraph_index[self.example_index[rows]]] + self.window_start[rows]
        return first + positions - self.question_lengths[rows] - 2

    def max_context_mask(self, rows: np.ndarray, length: int) -> np.ndarray:
        """Where an answer may begin: bool [B, length], for windows `rows`.

        True at the window's context tokens that have more context in this window than in any other of the example.
        """
        position = np.arange(length)[None, :]
        begin = (self.question_lengths[rows] + 2)[:, None]
        mask = (position >= begin) & (position < (self.lengths[rows] - 1)[:, None])
        examples = self.example_index[rows]
        shared = np.flatnonzero(np.diff(self.first_window)[examples] > 1)  # most examples have a single window
        owners: dict[int, np.ndarray] = {}
        for row in shared:
            example = int(examples[row])
            if example not in owners:
                windows = slice(self.first_window[example], self.first_window[example + 1])
                owners[example] = max_context_windows(self.window_length[windows], int(self.stride[example]))
            tokens = slice(self.window_start[rows[row]], self.window_start[rows[row]] + self.window_length[rows[row]])
            here = owners[example][tokens] == rows[row] - self.first_window[example]
            mask[row, begin[row, 0] : begin[row, 0] + len(here)] &= here[: max(0, length - begin[row, 0])]
        return mask


def check_lengths(
    max_seq_length: int, max_query_length: int, doc_stride: int, max_position_embeddings: int | None = None
) -> None:
    """Raise UserError where these lengths (in tokens) leave no room for text or exceed the model's positions."""
    if max_query_length < 1:
        raise UserError(f"--max_query_length is {max_query_length}; expected at least 1")
    if max_seq_length < max_query_length + 4:
        raise UserError(
            f"--max_seq_length {max_seq_length} is too small for --max_query_length {max_query_length}: expected at "
            f"least {max_query_length + 4}, for the question, three special tokens and one token of text"
        )
    if doc_stride < 1:
        raise UserError(f"--doc_stride is {doc_stride}; expected at least 1")
    if max_position_embeddings is not None and max_seq_length > max_position_embeddings:
        raise UserError(
            f"--max_seq_length {max_seq_length} is more than the {max_position_embeddings} positions the model has "
            "(max_position_embeddings)"
        )


def windows_overlap(max_seq_length: int, max_query_length: int, doc_stride: int) -> bool:
    """Whether windows overlap for every question.

    Where they do not no text is left out, since a window never begins beyond the end of the one before it, but an
    answer across the border is in neither window.
    """
    return doc_stride < max_seq_length - max_query_length - 3


def make_squad_features(
    examples: SquadExamples,
    tokenizer: Tokenizer,
    max_seq_length: int = 384,
    doc_stride: int = 128,
    max_query_length: int = 64,
) -> SquadFeatures:
    """The windows of all examples, in their order; with answer positions where `examples.is_training`.

    A window has room for max_seq_length - len(question) - 3 context tokens; the next begins min(room, doc_stride)
    tokens later, until one reaches the end. A context without any token gives no window.
    """
    check_lengths(max_seq_length, max_query_length, doc_stride)
    contexts = tokenizer.encode_words(examples.paragraphs)
    questions = _cut(tokenizer.encode_texts(examples.questions), max_query_length)

    context_lengths = np.diff(contexts.offsets)[examples.paragraph_index]  # [E], as are room, step and count
    room = max_seq_length - np.diff(questions.offsets) - 3
    step = np.minimum(room, doc_stride)
    count = np.where(context_lengths > 0, 1 + np.maximum(0, -((room - context_lengths) // step)), 0)
    first_window = offsets_of(count)
    example_index = np.repeat(np.arange(len(examples)), count)
    rank = np.arange(len(example_index)) - first_window[example_index]  # of the window within its example
    window_start = rank * step[example_index]
    window_length = np.minimum(room[example_index], context_lengths[example_index] - window_start)

    start_positions = end_positions = None
    if examples.is_training:
        spans = answer_token_spans(examples, contexts, tokenizer)[example_index]  # [N, 2]
        inside = (spans[:, 0] >= window_start) & (spans[:, 1] < window_start + window_length)
        shift = np.diff(questions.offsets)[example_index] + 2 - window_start
        start_positions, end_positions = np.where(inside[:, None], spans + shift[:, None], 0).astype(np.int32).T
    return SquadFeatures(
        contexts=contexts,
        questions=questions,
        paragraph_index=examples.paragraph_index,
        example_index=example_index.astype(np.int32),
        window_start=window_start.astype(np.int32),
        window_length=window_length.astype(np.int32),
        first_window=first_window,
        stride=step.astype(np.int32),
        start_positions=start_positions,
        end_positions=end_positions,
        cls_id=tokenizer.cls_id,
        sep_id=tokenizer.sep_id,
        pad_id=tokenizer.pad_id,
    )


def answer_token_spans(examples: SquadExamples, contexts: TokenizedTexts, tokenizer: Tokenizer) -> np.ndarray:
    """First and last context token of each training answer: int64 [E, 2]; (-1, -1) where impossible.

    The words of the answer are narrowed to the first run of word pieces that equals the tokenized answer text, where
    there is one: "(1895-1943)" with the answer "1895" becomes that one token. An answer that consists of words without
    pieces (control characters) counts as impossible.
    """
    answers = tokenizer.encode_texts(examples.answer_texts)
    spans = np.full((len(examples), 2), -1, np.int64)
    for index, (first_word, last_word) in enumerate(examples.answer_words.tolist()):
        if examples.impossible[index]:
            continue
        paragraph = examples.paragraph_index[index]
        context = slice(contexts.offsets[paragraph], contexts.offsets[paragraph + 1])
        start, stop = contexts.words[context].searchsorted((first_word, last_word + 1)).tolist()
        if start == stop:
            continue
        tokens, answer = contexts.ids[context][start:stop].tolist(), answers[index].tolist()
        spans[index] = start, stop - 1
        for shift in range(len(tokens) - len(answer) + 1):
            if answer and tokens[shift : shift + len(answer)] == answer:
                spans[index] = start + shift, start + shift + len(answer) - 1
                break
    return spans


def max_context_windows(window_lengths: np.ndarray, stride: int) -> np.ndarray:
    """For each context token of one example, the window that gives it the most context: int64 [tokens].

    `window_lengths`: int [K] of windows that begin at 0, stride, 2 * stride, ...; they cover the context together.
    A window's score is min(tokens before, tokens after) + 0.01 * its length; the earlier window wins a tie.
    """
    window_count = len(window_lengths)
    tokens = np.arange((window_count - 1) * stride + int(window_lengths[-1]))
    covering = -(-int(window_lengths[0]) // stride)  # no token is in more windows than this
    latest = np.minimum(tokens // stride, window_count - 1)
    windows = latest[:, None] + np.arange(1 - covering, 1)[None, :]  # [tokens, covering], earlier windows first
    existing = np.maximum(windows, 0)
    before = tokens[:, None] - existing * stride
    after = window_lengths[existing] - 1 - before
    score = np.minimum(before, after) + 0.01 * window_lengths[existing]
    score = np.where((windows >= 0) & (after >= 0), score, -np.inf)
    return existing[np.arange(len(tokens)), score.argmax(axis=1)]


def _cut(texts: TokenizedTexts, max_length: int) -> TokenizedTexts:
    """Every text cut to its first `max_length` tokens."""
    lengths = np.diff(texts.offsets)
    position = np.arange(len(texts.ids)) - np.repeat(texts.offsets[:-1], lengths)
    kept = position < max_length
    return TokenizedTexts(texts.ids[kept], texts.words[kept], offsets_of(np.minimum(lengths, max_length)))
