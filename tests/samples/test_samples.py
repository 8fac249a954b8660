"""The labelled data in samples/ keeps the promises of samples/README.md."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
V1_FILES = ("squad_train.json", "squad_dev.json")
V2_FILES = ("squad_v2_train.json", "squad_v2_dev.json")
SHORT_FILES = ("squad_short_train.json", "squad_short_dev.json")
ALL_FILES = V1_FILES + V2_FILES + SHORT_FILES


def read(name: str) -> list[dict[str, Any]]:
    return json.loads((SAMPLES / name).read_text(encoding="utf-8"))["data"]


def paragraphs(name: str) -> list[dict[str, Any]]:
    return [paragraph for article in read(name) for paragraph in article["paragraphs"]]


def questions(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Pairs of (context, question entry)."""
    return [(paragraph["context"], qa) for paragraph in paragraphs(name) for qa in paragraph["qas"]]


def spans(name: str) -> Iterator[tuple[str, str, str, int]]:
    """Every answer and plausible answer as (question id, context, text, answer_start)."""
    for context, qa in questions(name):
        for answer in qa["answers"] + qa.get("plausible_answers", []):
            yield qa["id"], context, answer["text"], answer["answer_start"]


def normalized(question: str) -> str:
    return " ".join(re.findall(r"\w+", question.lower()))


def cuts_a_word(context: str, position: int) -> bool:
    """True if a boundary at `position` falls inside a word or inside a number such as 1,216 or 2.4."""
    around = context[max(0, position - 2) : position + 2]
    inside_word = context[position - 1 : position].isalnum() and context[position : position + 1].isalnum()
    inside_number = re.search(r"\d[.,:]\d", around) is not None and context[position - 1 : position + 1].strip() != ""
    return inside_word or inside_number


@pytest.mark.parametrize(
    ("context", "position", "cut"),
    [
        pytest.param("made of 1,216 wires", 8, False, id="before-number"),
        pytest.param("made of 1,216 wires", 9, True, id="before-thousands-separator"),
        pytest.param("made of 1,216 wires", 10, True, id="after-thousands-separator"),
        pytest.param("made of 1,216 wires", 13, False, id="after-number"),
        pytest.param("in Zürich", 5, True, id="inside-accented-word"),
        pytest.param("in 1969. The", 7, False, id="before-full-stop"),
    ],
)
def test_word_boundary_rule(context: str, position: int, cut: bool) -> None:
    assert cuts_a_word(context, position) == cut


@pytest.mark.parametrize("name", ALL_FILES)
def test_answers_are_spans_of_their_paragraph(name: str) -> None:
    wrong = [key for key, context, text, start in spans(name) if context[start : start + len(text)] != text or not text]
    assert wrong == []


@pytest.mark.parametrize("name", ALL_FILES)
def test_answers_start_and_end_at_word_boundaries(name: str) -> None:
    wrong = [
        key
        for key, context, text, start in spans(name)
        if text != text.strip() or cuts_a_word(context, start) or cuts_a_word(context, start + len(text))
    ]
    assert wrong == []


@pytest.mark.parametrize("name", ALL_FILES)
def test_answers_have_one_to_ten_words(name: str) -> None:
    assert [key for key, _, text, _ in spans(name) if not 1 <= len(text.split()) <= 10] == []


@pytest.mark.parametrize("name", ALL_FILES)
def test_questions_end_with_a_question_mark_and_do_not_repeat(name: str) -> None:
    texts = [qa["question"] for _, qa in questions(name)]
    assert [text for text in texts if not text.endswith("?") or text != text.strip()] == []
    assert len({normalized(text) for text in texts}) == len(texts)


def test_sizes_allow_a_small_training_run() -> None:
    assert sum(len(paragraphs(name)) for name in V1_FILES) >= 40
    assert sum(len(questions(name)) for name in V1_FILES) >= 250
    long_contexts = [p for name in V1_FILES for p in paragraphs(name) if len(p["context"].split()) > 300]
    assert len(long_contexts) >= 2


def test_short_texts_fit_a_window_of_64_tokens() -> None:
    """The demo's window: 64 word pieces hold 26 words and a question of 15, names of several pieces included."""
    assert len(questions(SHORT_FILES[0])) >= 250
    for name in SHORT_FILES:
        assert [context for context in (p["context"] for p in paragraphs(name)) if len(context.split()) > 26] == []
        assert [qa["question"] for _, qa in questions(name) if len(qa["question"].split()) > 15] == []


def test_ids_are_unique_across_files() -> None:
    ids = [qa["id"] for name in ALL_FILES for _, qa in questions(name)]
    assert len(set(ids)) == len(ids)


def test_train_and_dev_share_no_title_and_no_paragraph() -> None:
    train_files, dev_files = ALL_FILES[::2], ALL_FILES[1::2]
    for part in (
        lambda name: {article["title"] for article in read(name)},
        lambda name: {paragraph["context"] for paragraph in paragraphs(name)},
    ):
        train = set().union(*(part(name) for name in train_files))
        dev = set().union(*(part(name) for name in dev_files))
        assert train and dev and not train & dev


@pytest.mark.parametrize(
    ("train", "dev"), [pytest.param(*V1_FILES, id="paragraphs"), pytest.param(*SHORT_FILES, id="short")]
)
def test_dev_accepts_several_spans_and_train_one(train: str, dev: str) -> None:
    assert all(len(qa["answers"]) == 1 for _, qa in questions(train))
    several = 0
    for _, qa in questions(dev):
        found = [(answer["text"], answer["answer_start"]) for answer in qa["answers"]]
        assert found and len(set(found)) == len(found), f"{qa['id']} has no answer or lists one twice"
        several += len(found) > 1
    assert several >= 10


@pytest.mark.parametrize("name", V1_FILES + SHORT_FILES)
def test_v1_entries_have_no_v2_keys(name: str) -> None:
    assert all(set(qa) == {"id", "question", "answers"} for _, qa in questions(name))


@pytest.mark.parametrize("name", V2_FILES)
def test_v2_impossible_questions_have_only_plausible_answers(name: str) -> None:
    answerable = [qa for _, qa in questions(name) if not qa["is_impossible"]]
    impossible = [qa for _, qa in questions(name) if qa["is_impossible"]]
    assert len(answerable) >= 20 and len(impossible) >= 12
    assert all(qa["answers"] and "plausible_answers" not in qa for qa in answerable)
    assert all(qa["answers"] == [] and len(qa["plausible_answers"]) >= 1 for qa in impossible)


@pytest.mark.parametrize("name", ALL_FILES)
def test_readme_states_the_counts(name: str) -> None:
    entries = [qa for _, qa in questions(name)]
    counts = [
        len(read(name)),
        len(paragraphs(name)),
        len(entries),
        sum(qa.get("is_impossible", False) for qa in entries),
    ]
    row = re.search(
        rf"^\| `{re.escape(name)}` \|(.*)\|$", (SAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert row is not None, f"samples/README.md has no row for {name}"
    assert [int(cell) for cell in row.group(1).split("|")[1:]] == counts
