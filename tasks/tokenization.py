"""WordPiece tokenization as in Google's BERT, run by the Rust library `tokenizers`.

The tokenizer is built from `vocab.txt` itself: text cleaning, spaces around Chinese characters, lower-casing with
removal of accents, splitting at white space and punctuation, then greedy longest-match-first WordPiece. Special tokens
are never recognized inside text: a question that contains the characters "[SEP]" is split into "[", "sep", "]", as
Google's tokenizer does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from twinquant.errors import UserError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
MAX_INPUT_CHARS_PER_WORD = 200  # longer words become [UNK]; Google's value (the library's own default is 100)
ROW_PADDING = 8  # embedding tables are often padded to a multiple of this for faster matrix products
WORDS_PER_TEXT, TEXTS_PER_CALL = 512, 64  # what goes to the library at once; bounds the memory its encodings take


@dataclass(frozen=True)
class TokenizedTexts:
    """Many tokenized texts, end to end in flat arrays.

    ids: int32 [tokens]; words: int32 [tokens], index of the word (within its text) each piece came from; offsets:
    int64 [texts + 1], text i owns tokens offsets[i]:offsets[i + 1].
    """

    ids: np.ndarray
    words: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """Token ids int32 [length] of one text."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]


def load_vocabulary(vocab_file: str | Path) -> list[str]:
    """The tokens of a BERT vocabulary file, one a line, in the order of their ids.

    As in Google's loader, surrounding white space is removed and the line number is the id. Blank lines at the end are
    not tokens. Raises UserError for a file that is missing, not UTF-8 text, empty, or lacks a special token.
    """
    try:
        lines = Path(vocab_file).read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise UserError(f"vocabulary file {vocab_file} does not exist") from None
    except UnicodeDecodeError as error:
        raise UserError(f"vocabulary file {vocab_file} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"vocabulary file {vocab_file} cannot be read: {error.strerror}") from None
    tokens = [line.strip() for line in lines]
    while tokens and not tokens[-1]:
        tokens.pop()
    if not tokens:
        raise UserError(f"vocabulary file {vocab_file} is empty; expected one token a line")
    missing = [token for token in SPECIAL_TOKENS if token not in tokens]
    if missing:
        raise UserError(
            f"vocabulary file {vocab_file} ({len(tokens)} tokens) has no {', '.join(missing)}; expected a BERT "
            "vocabulary with one token a line"
        )
    return tokens


def check_vocabulary_size(tokens: int, vocab_size: int, vocab_file: str | Path) -> None:
    """Raise UserError unless a vocabulary of `tokens` lines belongs to an embedding of `vocab_size` rows.

    Equal numbers belong together. So do up to seven rows more than tokens where the number of rows is a multiple of 8:
    that is a table padded for speed (30,522 tokens, 30,528 rows), whose last rows no text reaches. Anything else means
    that the vocabulary is another model's.
    """
    padded = 0 < vocab_size - tokens < ROW_PADDING and vocab_size % ROW_PADDING == 0
    if tokens != vocab_size and not padded:
        raise UserError(
            f"vocabulary file {vocab_file} has {tokens} tokens, but the model's word embeddings have {vocab_size} "
            "rows; expected the vocabulary the model was trained with"
        )


class Tokenizer:
    """A WordPiece tokenizer over one vocabulary; see `load_tokenizer`.

    Attributes: `tokens` (list of str, by id), `vocab` (token to id; the last of duplicate lines wins), `do_lower_case`,
    and the ids `pad_id`, `unk_id`, `cls_id`, `sep_id`.
    """

    def __init__(self, tokens: Sequence[str], do_lower_case: bool = True) -> None:
        self.tokens = list(tokens)
        self.vocab = {token: index for index, token in enumerate(self.tokens)}
        self.do_lower_case = do_lower_case
        self.pad_id, self.unk_id, self.cls_id, self.sep_id = (self.vocab[token] for token in SPECIAL_TOKENS)
        self._normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=True,
            strip_accents=None,  # None follows `lowercase`, as in Google's BasicTokenizer
            lowercase=do_lower_case,
        )
        self._pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._rust = tokenizers.Tokenizer(
            models.WordPiece(
                vocab=self.vocab,
                unk_token="[UNK]",
                max_input_chars_per_word=MAX_INPUT_CHARS_PER_WORD,
                continuing_subword_prefix="##",
            )
        )
        self._rust.normalizer = self._normalizer
        self._rust.pre_tokenizer = self._pre_tokenizer

    def basic_tokens(self, text: str) -> list[str]:
        """The words and punctuation marks of one text after cleaning and lower-casing, before WordPiece."""
        return [token for token, _ in self._pre_tokenizer.pre_tokenize_str(self._normalizer.normalize_str(text))]

    def encode_texts(self, texts: Sequence[str]) -> TokenizedTexts:
        """Tokenize many texts at once; no special tokens are added. `words` counts the runs between spaces."""
        return self.encode_words([text.split(" ") for text in texts])

    def encode_words(self, word_lists: Sequence[Sequence[str]]) -> TokenizedTexts:
        """Tokenize many texts that are already split into words; `words` indexes the given lists.

        A word may give no piece at all (a lone control character) or several. Every distinct word is tokenized once
        and its pieces are copied to where it occurs, which is three times as fast on SQuAD's paragraphs.
        """
        distinct = list(dict.fromkeys(chain.from_iterable(word_lists)))
        positions = {word: position for position, word in enumerate(distinct)}
        words_per_text = np.fromiter(map(len, word_lists), np.int64, len(word_lists))
        index = np.fromiter(
            map(positions.__getitem__, chain.from_iterable(word_lists)), np.int64, int(words_per_text.sum())
        )
        pieces, piece_counts = self._pieces_of(distinct)
        counts = piece_counts[index]
        word_ends, first_word = np.cumsum(counts), offsets_of(words_per_text)
        within_word = np.arange(counts.sum()) - np.repeat(word_ends - counts, counts)
        source = within_word + np.repeat(offsets_of(piece_counts)[:-1][index], counts)
        word_in_text = np.arange(len(index)) - np.repeat(first_word[:-1], words_per_text)
        offsets = np.concatenate([np.zeros(1, np.int64), word_ends])[first_word]
        return TokenizedTexts(pieces[source], np.repeat(word_in_text, counts).astype(np.int32), offsets)

    def _pieces_of(self, words: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all words' pieces end to end, int32, and the number of pieces of each word, int64 [words]."""
        ids, counts = [np.zeros(0, np.int32)], [np.zeros(0, np.int64)]
        groups = [words[first : first + WORDS_PER_TEXT] for first in range(0, len(words), WORDS_PER_TEXT)]
        for first in range(0, len(groups), TEXTS_PER_CALL):
            batch = groups[first : first + TEXTS_PER_CALL]
            encodings = self._rust.encode_batch(batch, is_pretokenized=True, add_special_tokens=False)
            for group, encoding in zip(batch, encodings, strict=True):
                ids.append(np.array(encoding.ids, dtype=np.int32))
                counts.append(np.bincount(np.array(encoding.word_ids, dtype=np.int64), minlength=len(group)))
        return np.concatenate(ids), np.concatenate(counts)


def offsets_of(lengths: Iterable[int]) -> np.ndarray:
    """Where each of several consecutive runs begins, and the end of the last: int64 [runs + 1]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.fromiter(lengths, np.int64))])


def load_tokenizer(vocab_file: str | Path, do_lower_case: bool = True, vocab_size: int | None = None) -> Tokenizer:
    """The tokenizer of a BERT vocabulary file.

    `vocab_size` is the number of rows of the model's word embeddings, to be checked against the file (see
    `check_vocabulary_size`). Raises UserError where the file cannot be used.
    """
    tokens = load_vocabulary(vocab_file)
    if vocab_size is not None:
        check_vocabulary_size(len(tokens), vocab_size, vocab_file)
    return Tokenizer(tokens, do_lower_case)
