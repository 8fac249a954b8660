"""Reading SQuAD files: words, answers, and what is wrong with a file."""

import json
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.squad_examples import SquadExamples, has_answers, read_squad_examples, select, take
from twinquant.errors import UserError

WriteSquad = Callable[..., Path]
CONTEXT = "The cat\tsat on\u202fthe  mat."  # two separators of SQuAD's own and a double space


def spans(examples: SquadExamples) -> list[str]:
    return [
        " ".join(examples.paragraphs[paragraph][first : last + 1])
        for paragraph, (first, last) in zip(examples.paragraph_index, examples.answer_words.tolist(), strict=True)
    ]


def test_words_and_answers(write_squad: WriteSquad) -> None:
    path = write_squad(
        (CONTEXT, [("q1", "who?", [("cat", 4)]), ("q2", "where?", [("the  mat", 15)])]),
        ("A dog\u00a0ran.", [("q3", "what?", [("ran", 6)])]),
    )
    examples = read_squad_examples(path, is_training=True)
    assert examples.paragraphs == [["The", "cat", "sat", "on", "the", "mat."], ["A", "dog\u00a0ran."]]
    assert examples.paragraph_index.tolist() == [0, 0, 1]
    assert examples.ids == ["q1", "q2", "q3"] and examples.questions == ["who?", "where?", "what?"]
    assert spans(examples) == ["cat", "the mat.", "dog\u00a0ran."]
    assert examples.answer_texts == ["cat", "the  mat", "ran"]
    assert not examples.impossible.any() and examples.skipped == 0 and len(examples) == 3


@pytest.mark.parametrize(
    "answer",
    [("dog", 4), ("cat", 40), ("cat", -1), ("", 4), ("mat. And more", 19)],
    ids=["other word", "beyond the end", "negative offset", "empty", "runs over the end"],
)
def test_unfound_answers_are_counted_and_skipped(
    write_squad: WriteSquad, answer: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    path = write_squad((CONTEXT, [("lost", "who?", [answer]), ("kept", "who?", [("cat", 4)])]))
    with caplog.at_level(logging.WARNING, "twinquant"):
        examples = read_squad_examples(path, is_training=True)
    assert examples.ids == ["kept"] and examples.skipped == 1
    (record,) = caplog.records
    assert "skipped 1 training question" in record.getMessage() and "lost" in record.getMessage()


def test_offset_before_the_first_word_is_not_found(write_squad: WriteSquad) -> None:
    path = write_squad((" cat", [("early", "?", [(" cat", 0)]), ("kept", "?", [("cat", 1)])]))
    assert read_squad_examples(path, is_training=True).ids == ["kept"]


def test_paragraph_without_kept_questions_is_not_stored(write_squad: WriteSquad) -> None:
    path = write_squad(("one", [("a", "?", [("two", 0)])]), ("two", [("b", "?", [("two", 0)])]))
    examples = read_squad_examples(path, is_training=True)
    assert examples.paragraphs == [["two"]] and examples.paragraph_index.tolist() == [0]


def test_impossible_questions(write_squad: WriteSquad) -> None:
    path = write_squad((CONTEXT, [("a", "?", [], {"is_impossible": True}), ("b", "?", [("cat", 4)])]))
    examples = read_squad_examples(path, is_training=True, version_2_with_negative=True)
    assert examples.impossible.tolist() == [True, False]
    assert examples.answer_words.tolist() == [[-1, -1], [1, 1]]
    with pytest.raises(UserError, match=r"question 0 \(id a\) has 0 answers.*--version_2_with_negative"):
        read_squad_examples(path, is_training=True)
    with pytest.raises(UserError, match="question a has no answer.*--version_2_with_negative"):
        read_squad_examples(path, is_training=False)


def test_training_needs_exactly_one_answer(write_squad: WriteSquad) -> None:
    path = write_squad((CONTEXT, [("a", "?", [("cat", 4), ("cat", 4)])]))
    with pytest.raises(UserError, match=r"\(id a\) has 2 answers; training expects exactly one"):
        read_squad_examples(path, is_training=True)
    assert read_squad_examples(path, is_training=False).gold_answers == [["cat", "cat"]]


def test_first_examples_only(write_squad: WriteSquad) -> None:
    path = write_squad(("one two", [("a", "?"), ("b", "?")]), ("three", [("c", "?")]))
    assert read_squad_examples(path, False, max_examples=2).ids == ["a", "b"]
    assert read_squad_examples(path, False, max_examples=9).ids == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("questions", "expected"),
    [
        ([("a", "?", [("cat", 4)])], True),
        ([("a", "?")], False),
        ([("a", "?", [], {"is_impossible": True})], True),
    ],
    ids=["answers", "none", "marked impossible"],
)
def test_has_answers(write_squad: WriteSquad, questions: list[tuple[Any, ...]], expected: bool) -> None:
    path = write_squad((CONTEXT, questions))
    assert has_answers(read_squad_examples(path, False, version_2_with_negative=True)) is expected


def test_selection_is_the_originals(write_squad: WriteSquad) -> None:
    path = write_squad(*[(f"word{number}", [(str(number), "?", [("word", 0)])]) for number in range(20)])
    examples = read_squad_examples(path, is_training=True)
    shuffled = [str(number) for number in range(20)]
    random.Random(12345).shuffle(shuffled)
    chosen = select(examples, 5)
    assert chosen.ids == shuffled[:5]
    assert [chosen.paragraphs[index] for index in chosen.paragraph_index] == [[f"word{i}"] for i in shuffled[:5]]
    assert select(examples, 50).ids == shuffled
    assert take(examples, [3]).ids == ["3"]


GOOD = {"id": "a", "question": "?", "answers": [{"text": "cat", "answer_start": 4}]}


def article(question: Any) -> dict[str, Any]:
    return {"data": [{"title": "Cats", "paragraphs": [{"context": CONTEXT, "qas": [GOOD | {"id": "0"}, question]}]}]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("", "is empty", id="empty"),
        pytest.param('{"data":\n [}', "not valid JSON.*line 2 column 3", id="invalid JSON"),
        pytest.param([], 'expected an object with a list "data"', id="list"),
        pytest.param({"version": "1.1"}, 'expected an object with a list "data"', id="no data"),
        pytest.param({"data": []}, "has no question", id="no article"),
        pytest.param({"data": [{"title": "Cats"}]}, r"article 0 \('Cats'\): .* \"paragraphs\"", id="no paragraphs"),
        pytest.param({"data": [3]}, "article 0: ", id="article is a number"),
        pytest.param({"data": [{"paragraphs": [{"qas": []}]}]}, 'article 0, paragraph 0: .*"context"', id="no context"),
        pytest.param(article({"id": "b", "answers": []}), 'paragraph 0, question 1: .*"question"', id="no question"),
        pytest.param(article(GOOD | {"id": 5}), 'question 1: .*"id"', id="number as id"),
        pytest.param(article(GOOD | {"id": "0"}), "question 1: the id '0' occurs more than once", id="repeated id"),
        pytest.param(article({"id": "b", "question": "?"}), 'question 1: .*"answers"', id="no answers"),
        pytest.param(article(GOOD | {"answers": [{"text": "x"}]}), 'question 1: .*"answer_start"', id="no offset"),
        pytest.param(article(GOOD | {"answers": ["cat"]}), 'question 1: .*"answer_start"', id="answer is text"),
        pytest.param(article(GOOD | {"is_impossible": "no"}), "question 1: .*true or false", id="is_impossible text"),
        pytest.param(article(GOOD | {"question": "\ud800"}), "question 1: .*surrogate", id="half a character"),
    ],
)
def test_bad_files(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "squad.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=message) as error:
        read_squad_examples(path, is_training=True)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["missing.json", "."], ids=["missing", "folder"])
def test_unreadable_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="does not exist|cannot be read"):
        read_squad_examples(tmp_path / name, is_training=False)


def test_real_files(shared_data: Path) -> None:
    train = read_squad_examples(shared_data / "squad/train-v1.1.subset11877.json", is_training=True)
    assert (len(train), train.skipped) == (11877, 0)
    pairs = zip(train.answer_texts, spans(train), strict=True)
    assert all(" ".join(answer.split()) in span for answer, span in pairs)
