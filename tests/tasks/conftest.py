"""A small vocabulary and SQuAD files made of a few words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.tokenization import Tokenizer, load_tokenizer

TOKENS = """[PAD] [UNK] [CLS] [SEP] [MASK] the cat sat on mat a dog ran un ##aff ##able ##s ##ed who what where ? . , '
s ( ) - 19 ##43 1895 1943 jim cafe 北 京 [ ] sep in w x y z 0 1 2 3 4 5 6 7 8 9"""


@pytest.fixture
def vocab_file(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(TOKENS.split()) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def tokenizer(vocab_file: Path) -> Tokenizer:
    return load_tokenizer(vocab_file)


@pytest.fixture
def write_squad(tmp_path: Path) -> Callable[..., Path]:
    """Writes a SQuAD file of one article and returns its path.

    Paragraphs are (context, questions); a question is (id, text, answers, more keys), the last two optional; answers
    are a list of (text, offset).
    """

    def write(*paragraphs: tuple[str, list[tuple[Any, ...]]], name: str = "squad.json") -> Path:
        listed = [
            {"context": context, "qas": [_question(*question) for question in questions]}
            for context, questions in paragraphs
        ]
        path = tmp_path / name
        path.write_text(json.dumps({"data": [{"title": "Cats", "paragraphs": listed}]}), encoding="utf-8")
        return path

    return write


def _question(
    identifier: str, text: str, answers: list[tuple[str, int]] | None = None, more: dict[str, Any] | None = None
) -> dict[str, Any]:
    listed = [{"text": answer, "answer_start": offset} for answer, offset in answers or []]
    return {"id": identifier, "question": text, "answers": listed} | (more or {})
