"""Which spans of a context may be the answer, from start and end logits, by the rules of Google BERT's run_squad.py.

Per window the n-best start and end positions are paired. A pair is dropped when it is not a span of the context, ends
before it begins, begins at a token that another window shows with more context, or is too long. All windows at once, in
NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.squad_features import SquadFeatures
from twinquant.errors import UserError

NO_SCORE = 1000000.0  # "no answer" is certain: the original's null score of a question without any window

Rows = np.ndarray | Sequence[np.ndarray]  # float [N, S], or N rows [S] of different lengths


@dataclass
class Candidates:
    """Possible answers of the examples in `examples`, sorted by example and falling score; K in all.

    limits: int64 [examples + 1], where each example's candidates begin and end. first, last: int64 [K], index into
    `features.contexts.ids` of the first and last token; -1 for "no answer". first_word, last_word: int64 [K], words of
    the paragraph these tokens come from. whole_words: bool [K], whether the span holds all pieces of its words.
    start_logit, end_logit: float64 [K]. null_logits: float64 [examples, 2], start and end logit of "no answer", and
    null_scores float64 [examples], their sum, or NO_SCORE for an example without windows.
    """

    examples: range
    limits: np.ndarray
    first: np.ndarray
    last: np.ndarray
    first_word: np.ndarray
    last_word: np.ndarray
    whole_words: np.ndarray
    start_logit: np.ndarray
    end_logit: np.ndarray
    null_logits: np.ndarray
    null_scores: np.ndarray


def find_candidates(
    features: SquadFeatures,
    examples: range,
    start_logits: Rows,
    end_logits: Rows,
    n_best_size: int,
    max_answer_length: int,
    with_null: bool,
) -> Candidates:
    """The candidates of consecutive examples. `with_null` puts "no answer" among them (SQuAD 2.0).

    start_logits, end_logits: rows for all features; what lies beyond a feature's length is ignored. Raises UserError
    for logits that are not finite, ValueError for a row shorter than its feature.
    """
    rows = np.arange(features.first_window[examples.start], features.first_window[examples.stop])
    start, end = _padded(start_logits, rows, features), _padded(end_logits, rows, features)
    null_logits, null_scores = _null_answers(features, examples, start, end)
    owner, first, last, start_logit, end_logit = _spans(features, rows, start, end, n_best_size, max_answer_length)
    if with_null:
        nothing = np.full(len(examples), -1, np.int64)
        owner, first, last = (
            np.concatenate(pair) for pair in ((owner, np.asarray(examples)), (first, nothing), (last, nothing))
        )
        start_logit = np.concatenate([start_logit, null_logits[:, 0]])
        end_logit = np.concatenate([end_logit, null_logits[:, 1]])
    # A stable sort, like the original's: equal scores keep the order of windows, then of starts, then of ends.
    order = np.lexsort((-(start_logit + end_logit), owner))
    first, last = first[order], last[order]
    words = features.contexts.words
    if len(words) == 0:
        words = np.zeros(1, np.int32)  # no context has a token, so every candidate is "no answer"
    starts_text, ends_text = _word_edges(features)
    return Candidates(
        examples=examples,
        limits=np.searchsorted(owner[order], np.arange(examples.start, examples.stop + 1)),
        first=first,
        last=last,
        first_word=words[first],
        last_word=words[last],
        whole_words=starts_text[first] & ends_text[last],
        start_logit=start_logit[order],
        end_logit=end_logit[order],
        null_logits=null_logits,
        null_scores=null_scores,
    )


def _spans(
    features: SquadFeatures,
    rows: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    n_best_size: int,
    max_answer_length: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Columns of all valid spans: example, first and last context token, start and end logit."""
    best_starts, best_ends = _best_positions(start, n_best_size), _best_positions(end, n_best_size)  # [n, k]
    window_begin, window_end = features.question_lengths[rows] + 2, features.lengths[rows] - 1
    may_start = np.take_along_axis(features.max_context_mask(rows, start.shape[1]), best_starts, axis=1)
    may_end = (best_ends >= window_begin[:, None]) & (best_ends < window_end[:, None])
    span_length = best_ends[:, None, :] - best_starts[:, :, None] + 1  # [n, k, k]
    valid = may_start[:, :, None] & may_end[:, None, :] & (span_length >= 1) & (span_length <= max_answer_length)
    row, start_rank, end_rank = np.nonzero(valid)
    start_position, end_position = best_starts[row, start_rank], best_ends[row, end_rank]
    window = rows[row]
    return (
        features.example_index[window],
        features.context_tokens(window, start_position),
        features.context_tokens(window, end_position),
        start[row, start_position],
        end[row, end_position],
    )


def _best_positions(logits: np.ndarray, count: int) -> np.ndarray:
    """Positions of the `count` highest logits of each row, highest first, the earlier of equal ones first."""
    return np.argsort(-logits, axis=1, kind="stable")[:, :count]


def _null_answers(
    features: SquadFeatures, examples: range, start: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of "no answer", at [CLS] of the window where their sum is smallest, and the sum."""
    logits = np.zeros((len(examples), 2))
    scores = np.full(len(examples), NO_SCORE)
    limits = features.first_window[examples.start : examples.stop + 1] - features.first_window[examples.start]
    if len(start):
        at_cls = np.stack([start[:, 0], end[:, 0]], axis=1)
        windows = np.lexsort((at_cls.sum(axis=1), np.repeat(np.arange(len(examples)), np.diff(limits))))
        has_window = limits[:-1] < limits[1:]
        logits[has_window] = at_cls[windows[limits[:-1][has_window]]]
        scores[has_window] = logits[has_window].sum(axis=1)
    return logits, scores


def _padded(logits: Rows, rows: np.ndarray, features: SquadFeatures) -> np.ndarray:
    """Rows as float64 [n, longest], -inf beyond each feature's length."""
    lengths = features.lengths[rows]
    padded = np.full((len(rows), int(lengths.max(initial=0))), -np.inf)
    for index, row in enumerate(rows):
        length = lengths[index]
        values = np.asarray(logits[row])
        if len(values) < length:
            raise ValueError(f"row {row} of the logits has {len(values)} positions; expected at least {length}")
        padded[index, :length] = values[:length]
    beyond = np.arange(padded.shape[1])[None, :] >= lengths[:, None]
    bad = np.flatnonzero(~(np.isfinite(padded) | beyond).all(axis=1))
    if len(bad):
        raise UserError(
            f"the model's logits for feature {rows[bad[0]]} are not finite (NaN or infinity); expected numbers, so "
            "check the checkpoint and its ranges"
        )
    return padded


def _word_edges(features: SquadFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Whether each context token is the first, and the last, piece of its word: two bool [tokens]."""
    contexts = features.contexts
    if len(contexts.words) == 0:
        return np.ones(1, bool), np.ones(1, bool)
    begins = np.ones(len(contexts.words) + 1, bool)
    begins[1:-1] = contexts.words[1:] != contexts.words[:-1]
    begins[contexts.offsets] = True
    return begins[:-1], begins[1:]
