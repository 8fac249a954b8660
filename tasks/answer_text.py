"""From word pieces back to the text of the document, by the alignment rule of Google BERT's get_final_text.

The pieces "steve smith" of the words "Steve Smith's" shall give "Steve Smith": neither the pieces (lower-cased) nor the
words (with the 's) are the answer. The words are tokenized without WordPiece, the pieces are looked up in the result,
and the place is carried over to the words by counting characters that are not spaces. Where that fails, the words
themselves are the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from tasks.tokenization import Tokenizer

logger = logging.getLogger("twinquant")


class TextProjector:
    """Projects pieces to text with one tokenizer, remembering every word's basic tokens."""

    def __init__(self, tokenizer: Tokenizer, verbose: bool = False) -> None:
        self._tokenizer = tokenizer
        self._verbose = verbose
        self._basic: dict[str, str] = {}

    def project(self, pieces: Sequence[str], words: Sequence[str]) -> str:
        """The part of `words` (the words that `pieces` come from, in order) that the pieces stand for.

        Pieces that are all of the words' pieces always give " ".join(words), so callers may skip the call.
        """
        original = " ".join(words)
        predicted = join_pieces(pieces)
        tokenized = " ".join(filter(None, map(self._basic_text, words)))
        start = tokenized.find(predicted) if predicted else -1
        if start < 0:
            return self._fall_back("cannot find %r in %r", predicted, original)
        if _characters(original) != _characters(tokenized):
            return self._fall_back("%r and %r differ in length without spaces", tokenized, original)
        first = start - tokenized.count(" ", 0, start)
        last = first + _characters(predicted) - 1
        return original[_position(words, first) : _position(words, last) + 1]

    def _basic_text(self, word: str) -> str:
        text = self._basic.get(word)
        if text is None:
            text = self._basic[word] = " ".join(self._tokenizer.basic_tokens(word))
        return text

    def _fall_back(self, message: str, text: str, original: str) -> str:
        if self._verbose:
            logger.info("answer text: " + message + ", taking whole words", text, original)
        return original


def join_pieces(pieces: Sequence[str]) -> str:
    """Word pieces as text: "su", "##per", "bowl" gives "super bowl"."""
    return " ".join(" ".join(pieces).replace(" ##", "").replace("##", "").split())


def _characters(text: str) -> int:
    return len(text) - text.count(" ")


def _position(words: Sequence[str], character: int) -> int:
    """Where in " ".join(words) the given character is, counted without spaces; words hold none."""
    position = character
    for word in words:
        if character < len(word):
            break
        character -= len(word)
        position += 1
    return position
