"""A small vocabulary and SQuAD files made of a few words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.tokenization import Tokenizer, load_tokenizer

TOKENS = """[PAD] [UNK] [CLS] [SEP] [MASK] the cat sat on mat a dog ran un ##aff ##able ##s ##ed who what where ? . , ' s ( )
- 19 ##43 1895 1943 jim cafe 北 京 [ ] sep in w x y z 0 1 2 3 4 5 6 7 8 9""".split()


@pytest.fixture
def vocab_file(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(TOKENS) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def tokenizer(vocab_file: Path) -> Tokenizer:
    return load_tokenizer(vocab_file)


def question(identifier: str, text: str, *answers: tuple[str, int], **extra: Any) -> dict[str, Any]:
    """One entry of "qas"; answers are (text, offset)."""
    listed = [{"text": answer, "answer_start": offset} for answer, offset in answers]
    return {"id": identifier, "question": text, "answers": listed, **extra}


def squad(*paragraphs: tuple[str, list[dict[str, Any]]], title: str = "Cats") -> dict[str, Any]:
    """The content of a SQuAD file of one article; paragraphs are (context, questions)."""
    listed = [{"context": context, "qas": questions} for context, questions in paragraphs]
    return {"version": "1.1", "data": [{"title": title, "paragraphs": listed}]}


@pytest.fixture
def write_squad(tmp_path: Path) -> Callable[..., Path]:
    """Writes squad(...) to a file and returns its path."""

    def write(*paragraphs: tuple[str, list[dict[str, Any]]], name: str = "squad.json") -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(squad(*paragraphs)), encoding="utf-8")
        return path

    return write
