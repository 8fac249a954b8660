"""Reading SQuAD files (versions 1.1 and 2.0) into one set of columns.

The rules for words, answer offsets and answers that cannot be found are those of Google BERT's run_squad.py. A context
is stored once per paragraph, not once per question, so that it is tokenized once.
"""

from __future__ import annotations

import json
import logging
import random
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from twinquant.errors import UserError
from twinquant.json_text import fault_of

logger = logging.getLogger("twinquant")

CALIBRATION_SEED = 12345  # FasterTransformer's run_squad.py shuffles its examples with random.Random(12345)
_WORD = re.compile("[^ \t\r\n\u202f]+")  # these five characters separate words, no others


@dataclass
class SquadExamples:
    """Questions over paragraphs, as columns; `len()` is the number of questions N.

    paragraphs: the words of each context. ids, questions: N strings; ids are unique. paragraph_index: int32 [N].
    For training: answer_texts (N strings, "" where impossible), answer_words int32 [N, 2] (first and last word of the
    answer, -1 where impossible) and impossible bool [N]; else answer_texts is empty and the arrays hold -1 and False.
    gold_answers: the texts of all answers in the file, per question. marked_impossible: bool [N], "is_impossible" as
    the file has it. skipped: number of training questions left out because their answer was not in the context.
    is_cut: whether the file has more questions, which `max_examples` of `read_squad_examples` left out.
    """

    paragraphs: list[list[str]]
    ids: list[str]
    questions: list[str]
    paragraph_index: np.ndarray
    answer_texts: list[str]
    answer_words: np.ndarray
    impossible: np.ndarray
    gold_answers: list[list[str]]
    marked_impossible: np.ndarray
    source: str
    is_training: bool
    skipped: int = 0
    is_cut: bool = False

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class _Columns:
    """The growing columns of SquadExamples."""

    paragraphs: list[list[str]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    paragraph_index: list[int] = field(default_factory=list)
    answer_texts: list[str] = field(default_factory=list)
    answer_words: list[tuple[int, int]] = field(default_factory=list)
    impossible: list[bool] = field(default_factory=list)
    gold_answers: list[list[str]] = field(default_factory=list)
    marked_impossible: list[bool] = field(default_factory=list)


def read_squad_examples(
    path: str | Path,
    is_training: bool,
    version_2_with_negative: bool = False,
    max_examples: int | None = None,
) -> SquadExamples:
    """The questions of a SQuAD file, in the order of the file; at most the first `max_examples` when given.

    For training every question must have exactly one answer (or be marked impossible in version 2.0). A training
    question whose answer is empty or not found at its offset is left out; one log line says how many were. Raises
    UserError for a file that cannot be read, is not SQuAD JSON (naming article, paragraph and question), has no
    question or repeats a question's id.
    """
    columns = _Columns()
    seen: set[str] = set()
    unfound: list[str] = []
    is_cut = False
    for where, context, question_list in _paragraphs(_load_articles(path), str(path)):
        matches = list(_WORD.finditer(context))
        words, word_starts = [match.group() for match in matches], [match.start() for match in matches]
        for number, question in enumerate(question_list):
            if max_examples is not None and len(columns.ids) >= max_examples:
                is_cut = True
                break
            at = f"{where}, question {number}"
            identifier, text = _text(question, "id", at), _text(question, "question", at)
            if identifier in seen:
                raise UserError(f"{at}: the id {identifier!r} occurs more than once; expected unique question ids")
            seen.add(identifier)
            answers = _answers(question, at, required=is_training)
            marked = _is_impossible(question, at)
            span, answer = (-1, -1), ""
            if is_training and not (marked and version_2_with_negative):
                answer, offset = _only_answer(answers, identifier, marked, at)
                found = _find_answer(words, word_starts, answer, offset, len(context))
                if found is None:
                    unfound.append(identifier)
                    continue
                span = found
            if not columns.paragraphs or columns.paragraphs[-1] is not words:
                columns.paragraphs.append(words)
            columns.ids.append(identifier)
            columns.questions.append(text)
            columns.paragraph_index.append(len(columns.paragraphs) - 1)
            columns.answer_words.append(span)
            columns.answer_texts.append(answer)
            columns.impossible.append(is_training and marked and version_2_with_negative)
            columns.gold_answers.append([gold for gold, _ in answers])
            columns.marked_impossible.append(marked)
    if unfound:
        logger.warning(
            "%s: skipped %d training question(s) whose answer is not in the context at its offset; the first is %s",
            path, len(unfound), unfound[0],
        )  # fmt: skip
    if not columns.ids:
        raise UserError(f"{path} has no question" + (" with an answer that can be found" if unfound else ""))
    examples = SquadExamples(
        paragraphs=columns.paragraphs,
        ids=columns.ids,
        questions=columns.questions,
        paragraph_index=np.array(columns.paragraph_index, np.int32),
        answer_texts=columns.answer_texts,
        answer_words=np.array(columns.answer_words, np.int32).reshape(-1, 2),
        impossible=np.array(columns.impossible, bool),
        gold_answers=columns.gold_answers,
        marked_impossible=np.array(columns.marked_impossible, bool),
        source=str(path),
        is_training=is_training,
        skipped=len(unfound),
        is_cut=is_cut,
    )
    if not is_training and not version_2_with_negative:
        _require_all_or_no_answers(examples)
    return examples


def has_answers(examples: SquadExamples) -> bool:
    """Whether the file tells the right answers, so that predictions can be scored (the test sets do not)."""
    return any(examples.gold_answers) or bool(examples.marked_impossible.any())


def take(examples: SquadExamples, indexes: Sequence[int]) -> SquadExamples:
    """The examples at `indexes`, in that order, with the paragraphs they need."""
    rows = np.asarray(indexes, np.int64)
    used, paragraph_index = np.unique(examples.paragraph_index[rows], return_inverse=True)
    return SquadExamples(
        paragraphs=[examples.paragraphs[index] for index in used],
        ids=[examples.ids[row] for row in rows],
        questions=[examples.questions[row] for row in rows],
        paragraph_index=paragraph_index.astype(np.int32).reshape(-1),
        answer_texts=[examples.answer_texts[row] for row in rows],
        answer_words=examples.answer_words[rows],
        impossible=examples.impossible[rows],
        gold_answers=[examples.gold_answers[row] for row in rows],
        marked_impossible=examples.marked_impossible[rows],
        source=examples.source,
        is_training=examples.is_training,
        skipped=examples.skipped,
        is_cut=examples.is_cut,
    )


def select(examples: SquadExamples, count: int, seed: int = CALIBRATION_SEED) -> SquadExamples:
    """The first min(count, N) examples after FasterTransformer's shuffle, for calibration."""
    order = list(range(len(examples)))
    random.Random(seed).shuffle(order)  # the permutation depends on the length only, so indexes serve for examples
    return take(examples, order[:count])


def _load_articles(path: str | Path) -> list[Any]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"SQuAD file {path} does not exist") from None
    except UnicodeDecodeError as error:
        raise UserError(f"SQuAD file {path} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"SQuAD file {path} cannot be read: {error.strerror}") from None
    if not text.strip():
        raise UserError(f"SQuAD file {path} is empty; expected JSON")
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    except ValueError as error:  # a number of more digits than Python converts
        raise UserError(f"{path} is not SQuAD JSON: {fault_of(error)}") from None
    except RecursionError:
        raise UserError(f"{path} is not SQuAD JSON: it is nested too deeply") from None
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise UserError(f'{path} is not SQuAD JSON: expected an object with a list "data" of articles')
    return content["data"]


def _paragraphs(articles: list[Any], path: str) -> Iterator[tuple[str, str, list[Any]]]:
    """For every paragraph: where it is in words, its context and its questions."""
    for article_number, article in enumerate(articles):
        title = article.get("title") if isinstance(article, dict) else None
        at = f"{path}, article {article_number}" + (f" ({title!r})" if isinstance(title, str) else "")
        for number, paragraph in enumerate(_list(article, "paragraphs", at)):
            where = f"{at}, paragraph {number}"
            questions = _list(paragraph, "qas", where)
            yield where, _text(paragraph, "context", where), questions


def _list(owner: Any, key: str, at: str) -> list[Any]:
    if not isinstance(owner, dict) or not isinstance(owner.get(key), list):
        raise UserError(f'{at}: expected an object with a list "{key}"')
    return owner[key]


def _text(owner: Any, key: str, at: str) -> str:
    value = owner.get(key) if isinstance(owner, dict) else None
    if not isinstance(value, str):
        raise UserError(f'{at}: expected an object with a string "{key}"')
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f'{at}: "{key}" holds half of a surrogate pair, which is not text') from None
    return value


def _answers(question: dict[str, Any], at: str, required: bool) -> list[tuple[str, int]]:
    """(text, offset) of every answer; files without answers, as the test sets are, are fine for prediction."""
    if "answers" not in question and not required:
        return []
    answers = []
    for answer in _list(question, "answers", at):
        offset = answer.get("answer_start", 0 if not required else None) if isinstance(answer, dict) else None
        if isinstance(offset, bool) or not isinstance(offset, int):
            raise UserError(f'{at}: expected answers with a whole number "answer_start"')
        answers.append((_text(answer, "text", at), offset))
    return answers


def _is_impossible(question: dict[str, Any], at: str) -> bool:
    marked = question.get("is_impossible", False)
    if not isinstance(marked, bool):
        raise UserError(f'{at}: "is_impossible" is {marked!r}; expected true or false')
    return marked


def _only_answer(answers: list[tuple[str, int]], identifier: str, marked_impossible: bool, at: str) -> tuple[str, int]:
    if len(answers) != 1:
        hint = "; files of SQuAD 2.0 need --version_2_with_negative" if marked_impossible else ""
        raise UserError(f"{at} (id {identifier}) has {len(answers)} answers; training expects exactly one{hint}")
    return answers[0]


def _find_answer(
    words: list[str], word_starts: list[int], answer: str, offset: int, context_length: int
) -> tuple[int, int] | None:
    """First and last word of the answer at this character offset, or None where its text is not there.

    A character between words belongs to the word before it, as in Google's char_to_word_offset.
    """
    last_character = offset + len(answer) - 1
    if not answer.strip() or offset < 0 or last_character >= context_length:
        return None
    first, last = bisect_right(word_starts, offset) - 1, bisect_right(word_starts, last_character) - 1
    if first < 0 or " ".join(answer.split()) not in " ".join(words[first : last + 1]):
        return None
    return first, last


def _require_all_or_no_answers(examples: SquadExamples) -> None:
    """Version 1.1 cannot score a question without answers; say so before the predictions are computed."""
    if has_answers(examples):
        for identifier, answers in zip(examples.ids, examples.gold_answers, strict=True):
            if not answers:
                raise UserError(
                    f"{examples.source}: question {identifier} has no answer while others have; files of SQuAD 2.0 "
                    "need --version_2_with_negative"
                )
