"""A reader of files that a user may give, as the tests of damaged files need it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from random import Random

WORDS = """[PAD] [UNK] [CLS] [SEP] [MASK] the cat sat on mat a dog ran un ##aff ##able ##s ##ed who what where ? . ,
' s ( ) - 19 ##43 good bad""".split()
# Numbers, words that are no words, and long ones.
CONTEXT = "The cat sat on the mat. A dog ran (1943) where who sat, unaffable's 北京 cats."


@dataclasses.dataclass(frozen=True)
class Reader:
    """One file of one form.

    make: writes all that belongs together into a folder. file: the one to damage. read: reads it, as far as a run
    would before it computes. ways: to damage it. slow: how many times as long as others it takes.
    """

    make: Callable[[Path], None]
    file: str
    read: Callable[[Path], object]
    ways: tuple[Callable[[Random, bytes], bytes], ...]
    slow: int = 1


def write_words(folder: Path, size: int = len(WORDS)) -> Path:
    path = folder / "vocab.txt"
    path.write_text("\n".join([*WORDS, *(f"word{n}" for n in range(size - len(WORDS)))]) + "\n", encoding="utf-8")
    return path
