"""Data files and lengths that cannot be used: one sentence, exit code 2, and nothing is changed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import flags, run, succeed, vocabulary

MODEL = flags(
    """--bert_config_file=squad_model/bert_config.json --vocab_file=squad_model/vocab.txt
    --init_checkpoint=squad_model/bert_model.ckpt --output_dir=out --backend=pytorch"""
)
SHORT = flags("--max_seq_length=64 --max_query_length=16 --doc_stride=32 --train_batch_size=4")
TRAIN = [*MODEL, *SHORT, "--train_file=squad_data/train-v1.1.json", "--do_train", "--max_steps=2"]


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def question(content: dict[str, Any], number: int = 3) -> dict[str, Any]:
    """A question of the second paragraph of the first article."""
    return content["data"][0]["paragraphs"][1]["qas"][number]


CHANGES = {
    "without-answers": (lambda c: question(c).pop("answers"), 'a list "answers"'),
    "two-answers": (lambda c: question(c).update(answers=question(c)["answers"] * 2), "2 answers"),
    "no-answer": (lambda c: question(c).update(answers=[]), "0 answers"),
    "offset-is-text": (lambda c: question(c)["answers"][0].update(answer_start="12"), 'whole number "answer_start"'),
    "question-is-a-number": (lambda c: question(c).update(question=5), 'a string "question"'),
    "id-is-missing": (lambda c: question(c).pop("id"), 'a string "id"'),
    "id-twice": (lambda c: question(c).update(id=question(c, 2)["id"]), "occurs more than once"),
    "questions-are-an-object": (lambda c: c["data"][0]["paragraphs"][1]["qas"].__setitem__(3, "?"), "an object"),
}


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_a_wrong_question_is_named(workplace: Path, change: Callable[[dict[str, Any]], None], words: str) -> None:
    """By file, article with its title, paragraph and question, all counted from 0."""
    edit(workplace / "squad_data/train-v1.1.json", change)
    error = run(*TRAIN, cwd=workplace).error()
    place = "squad_data/train-v1.1.json, article 0 ('Bridges of the Orla valley'), paragraph 1, question 3"
    assert place in error and words in error


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b'{"data": [', "not valid JSON", id="cut"),
        pytest.param(b"[]", 'a list "data"', id="a-list"),
        pytest.param(b'{"data": {}}', 'a list "data"', id="data-is-an-object"),
        pytest.param(b'{"data": []}', "has no question", id="no-articles"),
        pytest.param(b'{"data": [{"title": "A"}]}', "article 0 ('A')", id="article-without-paragraphs"),
        pytest.param(b"\xff\xfe{", "not UTF-8", id="not-utf-8"),
        pytest.param(b"id,question,answer\n1,Who,Me\n", "not valid JSON", id="csv"),
        pytest.param(b"[" * 100000, "not", id="nested-too-deeply"),
    ],
)
@pytest.mark.parametrize("flag", ["train_file", "predict_file"])
def test_a_file_of_another_kind(workplace: Path, flag: str, content: bytes, words: str) -> None:
    (workplace / "wrong.json").write_bytes(content)
    work = "--do_train" if flag == "train_file" else "--do_predict"
    model = [argument for argument in MODEL if flag == "train_file" or "init_checkpoint" not in argument]
    if flag == "predict_file":
        succeed(*TRAIN, cwd=workplace)
    error = run(*model, *SHORT, f"--{flag}=wrong.json", work, cwd=workplace).error()
    assert "wrong.json" in error and words in error


def test_a_missing_file(workplace: Path) -> None:
    error = run(*TRAIN, "--train_file=absent.json", cwd=workplace).error()
    assert "--train_file names absent.json, which does not exist" in error
    assert not (workplace / "out").exists()


def test_answers_that_are_not_found_are_counted_and_skipped(workplace: Path) -> None:
    """Also by the number of steps: int(26 / 4 * 2) instead of int(28 / 4 * 2)."""

    def change(content: dict[str, Any]) -> None:
        question(content, 1)["answers"][0]["answer_start"] += 7
        question(content, 2)["answers"][0]["text"] = "a text that is nowhere"

    edit(workplace / "squad_data/train-v1.1.json", change)
    first = question(json.loads((workplace / "squad_data/train-v1.1.json").read_text()), 1)["id"]
    outcome = succeed(*TRAIN, "--max_steps=-1", "--num_train_epochs=2", cwd=workplace)
    assert f"skipped 2 training question(s) whose answer is not in the context at its offset; the first is {first}" in (
        outcome.err
    )
    assert (workplace / "out/model.ckpt-13").is_dir()


def test_no_answer_is_found_at_all(workplace: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                for each in paragraph["qas"]:
                    each["answers"][0]["text"] = "a text that is nowhere"

    edit(workplace / "squad_data/train-v1.1.json", change)
    assert "no question with an answer that can be found" in run(*TRAIN, cwd=workplace).error()


def test_squad_2_without_its_flag(workplace: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        question(content).update(is_impossible=True, answers=[])

    edit(workplace / "squad_data/train-v1.1.json", change)
    assert "need --version_2_with_negative" in run(*TRAIN, cwd=workplace).error()


@pytest.mark.parametrize("difference", [-9, 1], ids=["shorter", "longer"])
def test_a_vocabulary_of_another_size(workplace: Path, difference: int) -> None:
    tokens = vocabulary()
    changed = tokens[:difference] if difference < 0 else [*tokens, "unheardof"]
    (workplace / "squad_model/vocab.txt").write_text("\n".join(changed) + "\n", encoding="utf-8")
    error = run(*TRAIN, cwd=workplace).error()
    assert "squad_model/vocab.txt" in error and str(len(changed)) in error and str(len(tokens)) in error


def test_a_vocabulary_without_special_tokens(workplace: Path) -> None:
    tokens = [token.strip("[]") for token in vocabulary()]
    (workplace / "squad_model/vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    assert "has no [PAD], [UNK], [CLS], [SEP]" in run(*TRAIN, cwd=workplace).error()


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        pytest.param("--max_seq_length=129", "more than the 128 positions the model has", id="above-positions"),
        pytest.param("--max_seq_length=19", "--max_query_length + 3", id="no-room-for-text"),
        pytest.param("--max_seq_length=0", "--max_seq_length takes", id="zero-length"),
        pytest.param("--doc_stride=0", "--doc_stride takes a whole number of at least 1", id="stride-0"),
        pytest.param("--doc_stride=-5", "--doc_stride takes", id="stride-negative"),
        pytest.param("--max_query_length=0", "--max_query_length takes", id="query-0"),
    ],
)
def test_lengths(workplace: Path, lengths: str, words: str) -> None:
    assert words in run(*TRAIN, lengths, cwd=workplace).error()
    assert not (workplace / "out").exists()


def test_the_shortest_window_works(workplace: Path) -> None:
    """One token of text per window."""
    succeed(*TRAIN, "--max_seq_length=20", "--doc_stride=1", "--max_steps=1", cwd=workplace)


def test_a_stride_that_would_skip_text_is_said_and_shortened(workplace: Path) -> None:
    """With answers anywhere in the text, every one of them is still in a window."""
    predict = ["--do_predict", "--predict_file=squad_data/dev-v1.1.json", "--verbose_logging"]
    outcome = succeed(*TRAIN, *predict, "--doc_stride=1000", cwd=workplace)
    assert "warning: --doc_stride=1000" in outcome.err
    assert len(json.loads((workplace / "out/predictions.json").read_text())) == 10


def test_a_question_longer_than_allowed_is_cut(workplace: Path) -> None:
    edit(workplace / "squad_data/train-v1.1.json", lambda content: question(content).update(question="why " * 500))
    succeed(*TRAIN, cwd=workplace)


def test_text_that_is_hard_to_tokenize(workplace: Path) -> None:
    """An empty context, control characters, emoji, a word of 500 letters: predicted without a complaint."""
    contexts = [
        "",
        " \t\n ",
        "\x00\x07",
        "😀 😀😀 ok",
        "a" * 500 + " b",
        "one\u2028two\u00a0three",
        "漢字 and kana かな",
    ]
    paragraphs = [
        {"context": text, "qas": [{"id": str(index), "question": "Who? 😀"}]} for index, text in enumerate(contexts)
    ]
    (workplace / "odd.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}), encoding="utf-8")
    succeed(*TRAIN, cwd=workplace)
    predict = [*MODEL, *SHORT, "--predict_file=odd.json", "--do_predict"]
    succeed(*predict, cwd=workplace)
    answers = json.loads((workplace / "out/predictions.json").read_text(encoding="utf-8"))
    assert list(answers) == [str(index) for index in range(len(contexts))]


def test_fewer_questions_than_a_batch(workplace: Path) -> None:
    wide = ["--train_batch_size=100", "--max_steps=-1", "--num_train_epochs=2"]
    error = run(*TRAIN, *wide, cwd=workplace).error()
    assert "28 examples / global batch 100 * 2.0 epochs is less than one step" in error
    succeed(*TRAIN, "--train_batch_size=100", "--max_steps=1", cwd=workplace)
