"""Answers from the candidates of each question: n-best lists, predictions and, for SQuAD 2.0, the odds of no answer."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.answer_text import TextProjector
from tasks.span_candidates import NO_SCORE, Candidates, Rows, find_candidates
from tasks.squad_examples import SquadExamples
from tasks.squad_features import SquadFeatures
from tasks.tokenization import Tokenizer
from twinquant.files import write_bytes_atomically

EXAMPLES_PER_CHUNK = 1024  # bounds the memory that pairs of positions take
NOTHING_FOUND = "empty"  # the original's answer where no span is possible (SQuAD 1.1)

Entry = dict[str, Any]


@dataclass
class Answers:
    """Answers by question id, in the order of the questions.

    predictions: the text. nbest: candidates, best first, each with "text", "probability", "start_logit", "end_logit".
    null_odds: score of no answer minus the score of the best answer (SQuAD 2.0 only, else None).
    """

    predictions: dict[str, str]
    nbest: dict[str, list[Entry]]
    null_odds: dict[str, float] | None

    def write(self, output_dir: str | Path) -> list[Path]:
        """Write predictions.json, nbest_predictions.json and, for SQuAD 2.0, null_odds.json (indent 4, ASCII).

        Returns what was written.
        """
        folder = Path(output_dir)
        files = {
            folder / "predictions.json": _json_lines(self.predictions),
            folder / "nbest_predictions.json": nbest_json(self.nbest).encode("ascii"),
        }
        if self.null_odds is not None:
            files[folder / "null_odds.json"] = _json_lines(self.null_odds)
        for path, content in files.items():
            write_bytes_atomically(path, content)
        return list(files)


def predict_answers(
    examples: SquadExamples,
    features: SquadFeatures,
    start_logits: Rows,
    end_logits: Rows,
    tokenizer: Tokenizer,
    n_best_size: int = 20,
    max_answer_length: int = 30,
    version_2_with_negative: bool = False,
    null_score_diff_threshold: float = 0.0,
    verbose: bool = False,
) -> Answers:
    """The answers of all examples, as Google BERT's run_squad.py finds them.

    start_logits, end_logits: one float row per feature, [N, S] or a sequence of rows; positions beyond a feature's
    length are ignored, so padding never matters. `max_answer_length` counts word pieces. With `version_2_with_negative`
    the answer is "" where the null score (the smallest start + end logit at [CLS] among the windows) exceeds that of
    the best answer by more than `null_score_diff_threshold`, or where no answer is possible; the null odds are then
    1000000. `verbose` logs every answer that cannot be aligned with the document. Raises ValueError for missing or
    short rows, UserError for logits that are not finite.
    """
    for name, rows in (("start_logits", start_logits), ("end_logits", end_logits)):
        if len(rows) != len(features):
            raise ValueError(f"{name} has {len(rows)} rows; expected one for each of the {len(features)} features")
    answers = Answers({}, {}, {} if version_2_with_negative else None)
    texts = _CandidateTexts(examples, features, TextProjector(tokenizer, verbose), tokenizer)
    for begin in range(0, len(examples), EXAMPLES_PER_CHUNK):
        chunk = range(begin, min(begin + EXAMPLES_PER_CHUNK, len(examples)))
        candidates = find_candidates(
            features, chunk, start_logits, end_logits, n_best_size, max_answer_length, version_2_with_negative
        )
        for example in chunk:
            identifier = examples.ids[example]
            entries = _best_entries(candidates, example, texts, n_best_size)
            if version_2_with_negative and all(entry["text"] for entry in entries):
                start_logit, end_logit = candidates.null_logits[example - begin].tolist()
                entries.append(_entry("", start_logit, end_logit))
            if not entries:
                entries.append(_entry(NOTHING_FOUND, 0.0, 0.0))
            _set_probabilities(entries)
            answers.nbest[identifier] = entries
            answers.predictions[identifier] = entries[0]["text"]
            if answers.null_odds is not None:
                null_score = float(candidates.null_scores[example - begin])
                text, odds = _with_null(entries, null_score, null_score_diff_threshold)
                answers.predictions[identifier], answers.null_odds[identifier] = text, odds
    return answers


class _CandidateTexts:
    """The text of a candidate; remembered, since questions about one paragraph often share candidates."""

    def __init__(
        self, examples: SquadExamples, features: SquadFeatures, projector: TextProjector, tokenizer: Tokenizer
    ) -> None:
        self._examples = examples
        self._ids = features.contexts.ids
        self._projector = projector
        self._tokens = tokenizer.tokens
        self._texts: dict[tuple[int, int], str] = {}

    def get(self, example: int, first: int, last: int, first_word: int, last_word: int, whole_words: bool) -> str:
        text = self._texts.get((first, last))
        if text is None:
            words = self._examples.paragraphs[self._examples.paragraph_index[example]][first_word : last_word + 1]
            if whole_words:
                text = " ".join(words)
            else:
                pieces = [self._tokens[index] for index in self._ids[first : last + 1].tolist()]
                text = self._projector.project(pieces, words)
            self._texts[first, last] = text
        return text


def _best_entries(candidates: Candidates, example: int, texts: _CandidateTexts, n_best_size: int) -> list[Entry]:
    """The first `n_best_size` candidates of different text."""
    position = example - candidates.examples.start
    part = slice(candidates.limits[position], candidates.limits[position + 1])
    columns = (
        candidates.first, candidates.last, candidates.first_word, candidates.last_word, candidates.whole_words,
        candidates.start_logit, candidates.end_logit,
    )  # fmt: skip
    entries: list[Entry] = []
    seen: set[str] = set()
    for first, last, first_word, last_word, whole_words, start_logit, end_logit in zip(
        *(column[part].tolist() for column in columns), strict=True
    ):
        if len(entries) >= n_best_size:
            break
        text = "" if first < 0 else texts.get(example, first, last, first_word, last_word, whole_words)
        if text not in seen:
            seen.add(text)
            entries.append(_entry(text, start_logit, end_logit))
    return entries


def _entry(text: str, start_logit: float, end_logit: float) -> Entry:
    return {"text": text, "probability": 0.0, "start_logit": start_logit, "end_logit": end_logit}


def _set_probabilities(entries: list[Entry]) -> None:
    """Softmax over the sums of logits."""
    scores = [entry["start_logit"] + entry["end_logit"] for entry in entries]
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    total = sum(weights)
    for entry, weight in zip(entries, weights, strict=True):
        entry["probability"] = weight / total


def _with_null(entries: list[Entry], null_score: float, threshold: float) -> tuple[str, float]:
    """The prediction of a SQuAD 2.0 question, "" for no answer, and its null odds."""
    best = next((entry for entry in entries if entry["text"]), None)
    if best is None:
        return "", NO_SCORE
    odds = null_score - best["start_logit"] - best["end_logit"]
    return ("" if odds > threshold else best["text"]), odds


def _json_lines(value: dict[str, Any]) -> bytes:
    # ASCII as the original writes it: the official evaluation scripts open files in the locale's encoding.
    return (json.dumps(value, indent=4) + "\n").encode("ascii")


def nbest_json(nbest: dict[str, list[Entry]]) -> str:
    """The text of nbest_predictions.json, equal to json.dumps(nbest, indent=4) with a newline at the end.

    The standard library indents in Python, token by token; with 20 entries a question that would take longer than
    finding them.
    """
    quote = json.JSONEncoder().encode
    questions = []
    for identifier, entries in nbest.items():
        blocks = [
            f"""        {{
            "text": {quote(entry["text"])},
            "probability": {entry["probability"]!r},
            "start_logit": {entry["start_logit"]!r},
            "end_logit": {entry["end_logit"]!r}
        }}"""
            for entry in entries
        ]
        questions.append(f"    {quote(identifier)}: [\n" + ",\n".join(blocks) + "\n    ]")
    return "{\n" + ",\n".join(questions) + "\n}\n"
