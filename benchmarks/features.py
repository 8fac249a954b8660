"""How fast SQuAD features are made: questions per second, from the JSON file to windows with answer positions.

    python -m benchmarks.features                                  # synthetic paragraphs and vocabulary
    python -m benchmarks.features --data dev-v1.1.json --vocab vocab.txt

Three ways are timed in turn in one process, and the medians compared:
  twinquant   tasks/squad_examples.py and tasks/squad_features.py
  python      BERT's original flow in plain Python: every question tokenizes its context anew
  fast        transformers' fast tokenizer on (question, context) pairs with overflowing windows and offset mappings,
              then answer positions from the offsets
Every question is used with its first answer; one without answers counts as impossible.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.squad_examples import read_squad_examples
from tasks.squad_features import make_squad_features
from tasks.tokenization import Tokenizer, load_tokenizer

QUERY_LENGTH = 64
BATCH_SIZE = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="SQuAD JSON file (default: synthetic)")
    parser.add_argument("--vocab", help="vocab.txt (needed with --data)")
    parser.add_argument("--max_seq_length", type=int, default=384)
    parser.add_argument("--doc_stride", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip_python", action="store_true", help="leave the slow plain Python way out")
    arguments = parser.parse_args()
    if arguments.data and not arguments.vocab:
        parser.error("--data needs --vocab")
    with tempfile.TemporaryDirectory() as folder:
        data, vocab = Path(folder, "data.json"), arguments.vocab
        if arguments.data:
            content = json.loads(Path(arguments.data).read_text(encoding="utf-8"))
        else:
            content, tokens = synthetic_squad()
            vocab = Path(folder, "vocab.txt")
            vocab.write_text("\n".join(tokens) + "\n", encoding="utf-8")
        data.write_text(json.dumps(with_first_answers(content)), encoding="utf-8")
        compare(data, load_tokenizer(vocab), arguments)


def compare(data: Path, tokenizer: Tokenizer, arguments: argparse.Namespace) -> None:
    from transformers import BertTokenizer

    fast = BertTokenizer(vocab=dict(tokenizer.vocab), do_lower_case=True)
    length, stride = arguments.max_seq_length, arguments.doc_stride
    ways: dict[str, Callable[[], int]] = {
        "twinquant": lambda: twinquant_features(data, tokenizer, length, stride),
        "fast": lambda: fast_tokenizer_features(data, fast, length, stride),
    }
    if not arguments.skip_python:
        ways["python"] = lambda: plain_python_features(data, tokenizer.vocab, length, stride)
    questions = len(read_squad_examples(data, True, True))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    windows = {}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            begin = time.perf_counter()
            windows[name] = way()
            seconds[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{questions} questions, max_seq_length {length}, doc_stride {stride}, {arguments.rounds} rounds, medians")
    for name, median in medians.items():
        ratio = median / medians["twinquant"]
        print(
            f"{name:10} {median:8.3f} s  {questions / median:9.0f} questions/s  {windows[name]:6} windows  "
            f"twinquant is {ratio:.1f} times as fast"
        )


def with_first_answers(content: dict[str, Any]) -> dict[str, Any]:
    """The file with exactly one answer per question, or none and marked impossible."""
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                question["answers"] = question.get("answers", [])[:1]
                question["is_impossible"] = not question["answers"]
    return content


def synthetic_squad(paragraphs: int = 400, questions: int = 5) -> tuple[dict[str, Any], list[str]]:
    """A SQuAD-like file of made-up words, and a vocabulary that holds half of them whole."""
    generator = random.Random(0)
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    lexicon = ["".join(generator.choices(syllables, k=generator.randint(1, 4))) for _ in range(6000)]
    weights = [1 / (rank + 1) for rank in range(len(lexicon))]  # few words are frequent, as in language
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", "?"]
    tokens += sorted(set(lexicon[::2]) | set(syllables) | {f"##{syllable}" for syllable in syllables})
    texts = []
    for number in range(paragraphs):
        words = generator.choices(lexicon, weights, k=generator.randint(60, 250))
        context = " ".join(words) + "."
        items = []
        for index in range(questions):
            first = generator.randrange(len(words) - 3)
            answer = " ".join(words[first : first + 3])
            offset = len(" ".join(words[:first])) + (first > 0)
            items.append(
                {
                    "id": f"{number}-{index}",
                    "question": " ".join(generator.choices(lexicon, weights, k=11)).capitalize() + "?",
                    "answers": [{"text": answer, "answer_start": offset}],
                }
            )
        texts.append({"context": context, "qas": items})
    return {"version": "1.1", "data": [{"title": "synthetic", "paragraphs": texts}]}, tokens


def flat_questions(data: Path) -> list[tuple[str, str, str, int]]:
    """(question, context, answer text or "", answer offset) of every question."""
    content = json.loads(data.read_text(encoding="utf-8"))
    rows = []
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            for item in paragraph["qas"]:
                answer = item["answers"][0] if item["answers"] else {"text": "", "answer_start": 0}
                rows.append((item["question"], paragraph["context"], answer["text"], answer["answer_start"]))
    return rows


def twinquant_features(data: Path, tokenizer: Tokenizer, length: int, stride: int) -> int:
    """Our windows, and all rows padded to `length` in batches, as training draws them; their number."""
    features = make_squad_features(read_squad_examples(data, True, True), tokenizer, length, stride, QUERY_LENGTH)
    for first in range(0, len(features), BATCH_SIZE):
        features.batch(range(first, min(first + BATCH_SIZE, len(features))), length)
    return len(features)


def fast_tokenizer_features(data: Path, tokenizer: Any, length: int, stride: int) -> int:
    """Windows of the fast tokenizer, whose `stride` is the overlap, with start and end positions; their number."""
    rows = flat_questions(data)
    encoded = tokenizer(
        [row[0].lstrip() for row in rows],
        [row[1] for row in rows],
        truncation="only_second",
        max_length=length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    positions = []
    for window, owner in enumerate(encoded["overflow_to_sample_mapping"]):
        _, _, text, begin = rows[owner]
        finish = begin + len(text)
        offsets, sequence = encoded["offset_mapping"][window], encoded.sequence_ids(window)
        first = sequence.index(1)
        last = len(sequence) - 1 - sequence[::-1].index(1)
        if not text or offsets[first][0] > begin or offsets[last][1] < finish:
            positions.append((0, 0))
            continue
        while first <= last and offsets[first][0] <= begin:
            first += 1
        while offsets[last][1] >= finish:
            last -= 1
        positions.append((first - 1, last + 1))
    return len(positions)


def plain_python_features(data: Path, vocab: dict[str, int], length: int, stride: int) -> int:
    """Windows of BERT's flow with a plain Python tokenizer, rows padded to `length`; their number."""
    windows: list[tuple[list[int], list[int], list[int], int, int]] = []
    for question, context, answer, offset in flat_questions(data):
        query = [vocab[piece] for piece in python_tokenize(question, vocab)][:QUERY_LENGTH]
        words, word_of_character, in_space = [], [], True
        for character in context:
            space = character in " \t\r\n\u202f"
            if not space and in_space:
                words.append(character)
            elif not space:
                words[-1] += character
            in_space = space
            word_of_character.append(len(words) - 1)
        first_piece, pieces = [], []
        for word in words:
            first_piece.append(len(pieces))
            pieces += python_tokenize(word, vocab)
        start = end = -1
        if answer:
            start = first_piece[word_of_character[offset]]
            last_word = word_of_character[offset + len(answer) - 1]
            end = (first_piece[last_word + 1] if last_word + 1 < len(words) else len(pieces)) - 1
            start, end = narrow(pieces, start, end, python_tokenize(answer, vocab))
        room, begin = length - len(query) - 3, 0
        while begin < len(pieces):
            part = pieces[begin : begin + room]
            ids = [vocab["[CLS]"], *query, vocab["[SEP]"], *(vocab[piece] for piece in part), vocab["[SEP]"]]
            mask, segments = [1] * len(ids), [0] * (len(query) + 2) + [1] * (len(part) + 1)
            for row in (ids, mask, segments):
                row += [0] * (length - len(row))
            inside = begin <= start and end < begin + len(part)
            shift = len(query) + 2 - begin
            windows.append((ids, mask, segments, start + shift if inside else 0, end + shift if inside else 0))
            if begin + len(part) == len(pieces):
                break
            begin += min(len(part), stride)
    return len(windows)


def narrow(pieces: list[str], start: int, end: int, answer: list[str]) -> tuple[int, int]:
    for first in range(start, end + 1):
        if pieces[first : first + len(answer)] == answer and first + len(answer) - 1 <= end:
            return first, first + len(answer) - 1
    return start, end


def python_tokenize(text: str, vocab: dict[str, int]) -> list[str]:
    """Cleaning, lower-casing, splitting and greedy WordPiece of one text."""
    cleaned = []
    for character in text:
        code, category = ord(character), unicodedata.category(character)
        if character in " \t\n\r" or category == "Zs":
            cleaned.append(" ")
        elif code in (0, 0xFFFD) or category[0] == "C":
            continue
        elif 0x4E00 <= code <= 0x9FFF or 0x3400 <= code <= 0x4DBF or 0xF900 <= code <= 0xFAFF or code >= 0x20000:
            cleaned.append(f" {character} ")
        else:
            cleaned.append(character)
    pieces: list[str] = []
    for word in "".join(cleaned).split():
        word = "".join(c for c in unicodedata.normalize("NFD", word.lower()) if unicodedata.category(c) != "Mn")
        spaced = "".join(f" {c} " if is_punctuation(c) else c for c in word)
        for token in spaced.split():
            pieces += word_pieces(token, vocab)
    return pieces


def is_punctuation(character: str) -> bool:
    code = ord(character)
    ascii_mark = 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126
    return ascii_mark or unicodedata.category(character)[0] == "P"


def word_pieces(token: str, vocab: dict[str, int]) -> list[str]:
    pieces, begin = [], 0
    while begin < len(token):
        for end in range(len(token), begin, -1):
            piece = ("##" if begin else "") + token[begin:end]
            if piece in vocab:
                break
        else:
            return ["[UNK]"]
        pieces.append(piece)
        begin = end
    return pieces if len(token) <= 200 else ["[UNK]"]


if __name__ == "__main__":
    main()
