"""Rows of tokens equal those that transformers' tokenizer makes, also where texts are cut."""

import logging
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tasks.classification_examples import ClassificationExamples, first, select, take
from tasks.classification_features import (
    ClassificationFeatures,
    check_max_seq_length,
    longest_first,
    make_classification_features,
)
from tasks.feature_cache import cached_features, checksum_key
from tasks.squad_examples import read_squad_examples
from tasks.squad_examples import select as select_questions
from tasks.tokenization import Tokenizer
from twinquant.errors import UserError

WORDS = "the cat sat unaffable dogs 1895-1943 北京 ? zebra , Jim's".split()


def examples_of(texts: list[str], seconds: list[str] | None = None, labels: list[float] | None = None, dtype=np.int32):
    array = None if labels is None else np.array(labels, dtype)
    return ClassificationExamples(texts, seconds, array, "train.csv")


def random_texts(seed: int, count: int, longest: int) -> list[str]:
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=generator.randint(0, longest))) for _ in range(count)]


@pytest.mark.parametrize("max_seq_length", [5, 6, 7, 16, 17, 64])
@pytest.mark.parametrize("pairs", [False, True], ids=["texts", "pairs"])
def test_rows_equal_those_of_transformers(tokenizer: Tokenizer, max_seq_length: int, pairs: bool) -> None:
    transformers = pytest.importorskip("transformers")
    reference = transformers.BertTokenizer(vocab=dict(tokenizer.vocab), do_lower_case=True)
    texts, seconds = random_texts(1, 60, 12), random_texts(2, 60, 12) if pairs else None
    features = make_classification_features(examples_of(texts, seconds), tokenizer, max_seq_length)
    batch = features.batch(range(60), max_seq_length)
    expected = reference(
        texts, seconds, truncation="longest_first", max_length=max_seq_length, padding="max_length", return_tensors="np"
    )
    assert batch["input_ids"].tolist() == expected["input_ids"].tolist()
    assert batch["input_mask"].tolist() == expected["attention_mask"].tolist()
    assert batch["segment_ids"].tolist() == expected["token_type_ids"].tolist()
    assert {array.dtype for array in batch.values()} == {np.dtype(np.int32)}


def test_truncation_keeps_as_much_as_fits() -> None:
    first_lengths, second_lengths = (grid.ravel() for grid in np.meshgrid(np.arange(12), np.arange(12)))
    for room in range(2, 25):
        kept, second_kept = longest_first(first_lengths, second_lengths, room)
        assert (kept <= first_lengths).all() and (second_kept <= second_lengths).all()
        assert (kept + second_kept == np.minimum(first_lengths + second_lengths, room)).all()
        cut, second_cut = kept < first_lengths, second_kept < second_lengths
        assert (kept[cut] >= second_kept[cut] - 1).all() and (second_kept[second_cut] >= kept[second_cut] - 1).all()


def test_batch(tokenizer: Tokenizer) -> None:
    features = make_classification_features(examples_of(["the cat", "a", "sat on mat"], None, [2, 0, 1]), tokenizer)
    assert features.lengths.tolist() == [4, 3, 5] and features.lengths.dtype == np.int32
    batch = features.batch([1, 0])
    assert tokenizer.tokens[batch["input_ids"][1, 1]] == "the"
    assert batch["input_ids"].shape == (2, 4) and batch["input_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch["labels"].tolist() == [0, 2] and batch["labels"].dtype == np.int32 and "label_values" not in batch
    assert features.batch([], 7)["input_ids"].shape == (0, 7)
    with pytest.raises(ValueError, match="a row has 5 tokens, but the batch is to be 4 tokens long"):
        features.batch([2], 4)


def test_labels_of_regressions_and_unknown_labels(tokenizer: Tokenizer) -> None:
    features = make_classification_features(examples_of(["a", "the"], None, [0.5, 4.0], np.float32), tokenizer)
    batch = features.batch([1, 0])
    assert batch["label_values"].tolist() == [4.0, 0.5] and batch["label_values"].dtype == np.float32
    assert "labels" not in batch
    assert make_classification_features(examples_of(["a"]), tokenizer).batch([0]).keys() == {
        "input_ids", "input_mask", "segment_ids",
    }  # fmt: skip


def test_empty_and_long_texts_are_counted(tokenizer: Tokenizer) -> None:
    single = make_classification_features(examples_of(["", " \n", "the cat sat on", "the cat sat"]), tokenizer, 5)
    assert (single.empty, single.truncated) == (2, 1) and single.lengths.tolist() == [2, 2, 5, 5]
    assert single.batch([0])["input_ids"].tolist() == [[tokenizer.cls_id, tokenizer.sep_id]]
    pairs = make_classification_features(
        examples_of(["", "the cat", "the"], ["the", "", "cat sat on mat"]), tokenizer, 6
    )
    assert (pairs.empty, pairs.truncated) == (2, 1) and pairs.lengths.tolist() == [4, 5, 6]
    assert pairs.batch([0])["segment_ids"].tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("length", "positions", "message"),
    [(4, None, "expected at least 5"), (513, 512, "--max_seq_length 513 is more than the 512 positions")],
)
def test_lengths_that_do_not_fit(length: int, positions: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_max_seq_length(length, positions)


def test_selections(write_squad: Callable[..., Path]) -> None:
    examples = examples_of(list("abcdefgh"), list("ABCDEFGH"), list(range(8)))
    chosen = take(examples, [3, 1])
    assert (chosen.texts, chosen.second_texts) == (["d", "b"], ["D", "B"])
    assert chosen.labels is not None and chosen.labels.tolist() == [3, 1]
    assert first(examples, 2).texts == ["a", "b"] and first(examples, None) is examples is first(examples, 9)
    questions = [(letter, "who", [("cat", 0)]) for letter in examples.texts]
    squad = read_squad_examples(write_squad(("cat", questions)), is_training=True)
    assert select(examples, 5).texts == select_questions(squad, 5).ids  # one shuffle for all tasks
    assert sorted(select(examples, 100).texts) == examples.texts


def test_checksum_covers_everything() -> None:
    variants = [
        examples_of(["a", "b"]), examples_of(["ab", ""]), examples_of(["a", "b"], ["c", "d"]),
        examples_of(["a", "b"], ["cd", ""]), examples_of(["a", "b"], None, [0, 1]),
        examples_of(["a", "b"], None, [1, 0]), examples_of(["a", "b"], None, [0, 1], np.float32),
    ]  # fmt: skip
    assert len({examples.checksum() for examples in variants}) == len(variants)
    assert examples_of(["a", "b"]).checksum() == variants[0].checksum() and len(variants[0].checksum()) == 64


@pytest.mark.parametrize("labels", [None, [1, 0], [0.5, 1.5]], ids=["no-labels", "classes", "values"])
def test_cache(
    tokenizer: Tokenizer, tmp_path: Path, labels: list[float] | None, caplog: pytest.LogCaptureFixture
) -> None:
    dtype = np.float32 if labels == [0.5, 1.5] else np.int32
    examples = examples_of(["the cat", ""], ["a dog ran on", "sat"], labels, dtype)
    made = make_classification_features(examples, tokenizer, 6)
    calls: list[int] = []

    def make() -> ClassificationFeatures:
        calls.append(1)
        return make_classification_features(examples, tokenizer, 6)

    for _ in range(2):
        cached = cached_features(tmp_path, "k", make, form=ClassificationFeatures)
        assert (cached.truncated, cached.empty, cached.pad_id) == (made.truncated, made.empty, made.pad_id) == (1, 1, 0)
        batch, expected = cached.batch([1, 0]), made.batch([1, 0])
        assert batch.keys() == expected.keys()
        for name, array in expected.items():
            assert batch[name].dtype == array.dtype and batch[name].tolist() == array.tolist()
    assert len(calls) == 1
    path = tmp_path / "classification-features-k.npz"
    path.write_bytes(path.read_bytes()[:-20])
    with caplog.at_level(logging.WARNING, "twinquant"):
        cached_features(tmp_path, "k", make, form=ClassificationFeatures)
    assert len(calls) == 2 and "is damaged" in caplog.text


def test_key_covers_everything(vocab_file: Path) -> None:
    keys = {
        checksum_key("1", vocab_file, max_seq_length=128), checksum_key("2", vocab_file, max_seq_length=128),
        checksum_key("1", vocab_file, max_seq_length=64), checksum_key("1", vocab_file, do_lower_case=True),
    }  # fmt: skip
    vocab_file.write_text("other")
    assert len(keys | {checksum_key("1", vocab_file, max_seq_length=128)}) == 5
