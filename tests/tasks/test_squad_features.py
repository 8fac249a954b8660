"""Windows, answer positions and batches against small cases by hand and a plain loop over tokens."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tasks.squad_examples import read_squad_examples
from tasks.squad_features import SquadFeatures, check_lengths, make_squad_features, max_context_windows, windows_overlap
from tasks.tokenization import Tokenizer
from twinquant.errors import UserError

WriteSquad = Callable[..., Path]


def rows_as_tokens(features: SquadFeatures, tokenizer: Tokenizer) -> list[str]:
    batch = features.batch(np.arange(len(features)))
    return [
        " ".join(tokenizer.tokens[index] for index in ids[: mask.sum()])
        for ids, mask in zip(batch["input_ids"], batch["input_mask"], strict=True)
    ]


def test_windows_by_hand(write_squad: WriteSquad, tokenizer: Tokenizer) -> None:
    path = write_squad(
        ("0 1 2 3 4 5 6", [("a", "who ?", [("3 4", 6)]), ("b", "what where who ?", [("0", 0)])]),
        ("x", [("c", "w", [("x", 0)])]),
    )
    features = make_squad_features(read_squad_examples(path, True), tokenizer, 9, 2, 3)
    assert rows_as_tokens(features, tokenizer) == [
        "[CLS] who ? [SEP] 0 1 2 3 [SEP]",
        "[CLS] who ? [SEP] 2 3 4 5 [SEP]",
        "[CLS] who ? [SEP] 4 5 6 [SEP]",
        "[CLS] what where who [SEP] 0 1 2 [SEP]",
        "[CLS] what where who [SEP] 2 3 4 [SEP]",
        "[CLS] what where who [SEP] 4 5 6 [SEP]",
        "[CLS] w [SEP] x [SEP]",
    ]
    assert features.example_index.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert features.lengths.tolist() == [9, 9, 8, 9, 9, 9, 5] and features.lengths.dtype == np.int32
    batch = features.batch([1, 6, 3], length=10)
    assert {name: array.dtype for name, array in batch.items()} == dict.fromkeys(batch, np.dtype(np.int32))
    assert batch["start_positions"].tolist() == [5, 3, 5] and batch["end_positions"].tolist() == [6, 3, 5]
    assert batch["input_mask"].tolist() == [[1] * 9 + [0], [1] * 5 + [0] * 5, [1] * 9 + [0]]
    assert batch["segment_ids"].tolist() == [
        [0] * 4 + [1] * 5 + [0],
        [0] * 3 + [1] * 2 + [0] * 5,
        [0] * 5 + [1] * 4 + [0],
    ]
    assert batch["input_ids"][1, 5:].tolist() == [tokenizer.pad_id] * 5
    everything = features.batch(range(7))
    assert everything["start_positions"].tolist() == [0, 5, 0, 5, 0, 0, 3]  # 0 where the window lacks the answer
    assert everything["end_positions"].tolist() == [0, 6, 0, 5, 0, 0, 3]


def test_batch_refuses_to_cut(write_squad: WriteSquad, tokenizer: Tokenizer) -> None:
    path = write_squad(("0 1 2", [("a", "who", [("0", 0)])]))
    features = make_squad_features(read_squad_examples(path, True), tokenizer)
    with pytest.raises(ValueError, match="7 tokens"):
        features.batch([0], length=6)
    assert features.batch([], length=6)["input_ids"].shape == (0, 6)


def test_prediction_has_no_positions(write_squad: WriteSquad, tokenizer: Tokenizer) -> None:
    path = write_squad(("0 1 2", [("a", "who")]), ("\u200b \n", [("b", "who")]))
    features = make_squad_features(read_squad_examples(path, False), tokenizer)
    assert set(features.batch([0])) == {"input_ids", "input_mask", "segment_ids"}
    assert features.example_index.tolist() == [0]  # a context without tokens gives no window


@pytest.mark.parametrize(
    ("context", "answer", "expected"),
    [
        pytest.param("jim (1895-1943) sat", ("1895", 5), "1895", id="inside punctuation"),
        pytest.param("jim 1895 1895-1943.", ("1895-1943", 9), "1895 - 1943", id="several pieces"),
        pytest.param("(the cat-cat)", ("cat", 5), "cat", id="first match"),
        pytest.param("jim ran unaffable", ("aff", 10), "un ##aff ##able", id="no match keeps the word"),
        pytest.param("Jim's Café", ("Café", 6), "cafe", id="accent"),
        pytest.param("the cat \u200b sat", ("cat \u200b", 4), "cat", id="last word without pieces"),
    ],
)
def test_answer_is_narrowed(
    write_squad: WriteSquad, tokenizer: Tokenizer, context: str, answer: tuple[str, int], expected: str
) -> None:
    path = write_squad((context, [("filler", "?", [(context.split()[0], 0)]), ("a", "who", [answer])]))
    features = make_squad_features(read_squad_examples(path, True), tokenizer)
    batch = features.batch([1])
    start, end = batch["start_positions"][0], batch["end_positions"][0]
    assert " ".join(tokenizer.tokens[index] for index in batch["input_ids"][0, start : end + 1]) == expected


def test_impossible_and_pieceless_answers_are_at_zero(write_squad: WriteSquad, tokenizer: Tokenizer) -> None:
    questions = [("a", "who", [], {"is_impossible": True}), ("b", "who", [("\u200b", 4)])]
    examples = read_squad_examples(write_squad(("the \u200b cat", questions)), True, True)
    features = make_squad_features(examples, tokenizer)
    assert features.start_positions is not None and features.start_positions.tolist() == [0, 0]
    assert features.end_positions is not None and features.end_positions.tolist() == [0, 0]


def windows_by_loop(tokens: int, room: int, stride: int) -> list[tuple[int, int]]:
    windows, begin = [], 0
    while begin < tokens:
        length = min(tokens - begin, room)
        windows.append((begin, length))
        if begin + length == tokens:
            break
        begin += min(length, stride)
    return windows


def owners_by_loop(tokens: int, windows: list[tuple[int, int]]) -> list[int]:
    owners = []
    for token in range(tokens):
        best, best_score = -1, -1.0
        for index, (begin, length) in enumerate(windows):
            if begin <= token < begin + length:
                score = min(token - begin, begin + length - 1 - token) + 0.01 * length
                if score > best_score:
                    best, best_score = index, score
        owners.append(best)
    return owners


@pytest.mark.parametrize("stride", [1, 2, 3, 5, 8, 20])
@pytest.mark.parametrize("room", [1, 2, 5, 9])
def test_windows_and_owners_equal_a_plain_loop(
    write_squad: WriteSquad, tokenizer: Tokenizer, room: int, stride: int
) -> None:
    sizes = [1, 2, 4, 5, 6, 8, 9, 10, 11, 17, 23, 40]
    path = write_squad(*[(" ".join("x" * size), [(str(size), "who")]) for size in sizes])
    features = make_squad_features(read_squad_examples(path, False), tokenizer, room + 4, stride, 1)
    mask = features.max_context_mask(np.arange(len(features)), room + 4)
    for example, size in enumerate(sizes):
        rows = np.flatnonzero(features.example_index == example)
        expected = windows_by_loop(size, room, stride)
        assert list(zip(features.window_start[rows], features.window_length[rows], strict=True)) == expected
        owners = owners_by_loop(size, expected)
        assert max_context_windows(features.window_length[rows], min(room, stride)).tolist() == owners
        for index, (begin, length) in enumerate(expected):
            here = [owner == index for owner in owners[begin : begin + length]]
            assert mask[rows[index]].tolist() == [False] * 3 + here + [False] * (room + 1 - length)


def test_length_of_the_window_counts_in_the_score() -> None:
    """A window longer by 310 tokens wins against one token more of context, up to three."""
    windows = windows_by_loop(440, 400, 350)
    assert windows == [(0, 400), (350, 90)]
    owners = max_context_windows(np.array([400, 90]), 350).tolist()
    assert owners == owners_by_loop(440, windows)
    without_length = [min(token - 350, 439 - token) > min(token, 399 - token) for token in range(350, 400)]
    assert owners[350:400] != [int(second) for second in without_length]


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        pytest.param((67, 64, 128), "--max_seq_length 67 .*--max_query_length 64.*at least 68", id="no room"),
        pytest.param((384, 64, 0), "--doc_stride is 0", id="stride"),
        pytest.param((384, 0, 128), "--max_query_length is 0", id="query"),
        pytest.param((513, 64, 128, 512), "--max_seq_length 513 is more than the 512", id="positions"),
    ],
)
def test_bad_lengths(lengths: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_lengths(*lengths)


def test_good_lengths() -> None:
    check_lengths(68, 64, 1)
    check_lengths(512, 64, 128, 512)
    assert windows_overlap(384, 64, 316) and not windows_overlap(384, 64, 317)


def test_real_windows(shared_data: Path) -> None:
    from tasks.tokenization import load_tokenizer

    tokenizer = load_tokenizer(shared_data / "models/minilm-squad/vocab.txt")
    examples = read_squad_examples(shared_data / "squad/dev-v1.1.json", False)
    features = make_squad_features(examples, tokenizer, 384, 128, 64)
    assert (len(examples), len(features)) == (10570, 10833)  # the counts known from Google BERT's run_squad.py
    assert features.lengths.max() == 384
