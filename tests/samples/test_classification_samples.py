"""The labelled sentences in samples/ keep the promises of samples/README.md."""

import difflib
import re
from collections import Counter
from pathlib import Path

import pytest

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
TRAIN = "classification_train.tsv"
DEV = "classification_dev.tsv"
LABELS = {"resolved", "open"}


def read(name: str) -> list[tuple[str, str]]:
    """Pairs of (sentence, label), in the order of the file."""
    header, *lines = (SAMPLES / name).read_text(encoding="utf-8").splitlines()
    assert header == "sentence\tlabel"
    rows = [line.split("\t") for line in lines]
    assert {len(row) for row in rows} == {2}
    return [(sentence, label) for sentence, label in rows]


def words(sentence: str) -> list[str]:
    return re.findall(r"[\w']+", sentence.lower())


def shared_words(one: list[str], other: list[str]) -> float:
    """Share of the longer sentence's words that the other has in the same order, 0 to 1."""
    blocks = difflib.SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) / max(len(one), len(other))


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        pytest.param("it works now", "It works now!", 1.0, id="case-and-punctuation-do-not-count"),
        pytest.param("it works now", "it fails now", 2 / 3, id="one-word-apart"),
        pytest.param("it works", "it works by now", 2 / 4, id="longer-sentence-counts"),
        pytest.param("it works", "nothing helped", 0.0, id="nothing-shared"),
    ],
)
def test_shared_words(one: str, other: str, share: float) -> None:
    assert shared_words(words(one), words(other)) == pytest.approx(share)


@pytest.mark.parametrize(("name", "least"), [pytest.param(TRAIN, 640, id="train"), pytest.param(DEV, 200, id="dev")])
def test_enough_sentences_of_both_labels(name: str, least: int) -> None:
    counts = Counter(label for _, label in read(name))
    assert set(counts) == LABELS
    assert counts.total() >= least
    assert abs(counts["resolved"] - counts["open"]) <= 0.05 * counts.total()


@pytest.mark.parametrize("name", [pytest.param(TRAIN, id="train"), pytest.param(DEV, id="dev")])
def test_readme_states_the_counts(name: str) -> None:
    counts = Counter(label for _, label in read(name))
    row = f"| `{name}` | {counts.total()} | {counts['resolved']} | {counts['open']} |"
    assert row in (SAMPLES / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [pytest.param(TRAIN, id="train"), pytest.param(DEV, id="dev")])
def test_file_is_plain_utf8_tsv(name: str) -> None:
    """No byte-order mark, carriage return or double quote: every reader of tsv splits the file the same way."""
    data = (SAMPLES / name).read_bytes()
    assert not data.startswith(b"\xef\xbb\xbf")
    assert b"\r" not in data and b'"' not in data
    assert data.endswith(b"\n") and not data.endswith(b"\n\n")
    assert [sentence for sentence, _ in read(name) if sentence != " ".join(sentence.split())] == []


def test_some_text_is_beyond_ascii() -> None:
    assert any(not sentence.isascii() for sentence, _ in read(TRAIN))
    assert any(not sentence.isascii() for sentence, _ in read(DEV))


def test_lengths_vary_from_five_to_forty_words() -> None:
    lengths = [len(sentence.split()) for sentence, _ in read(TRAIN) + read(DEV)]
    assert min(lengths) == 5
    assert 35 <= max(lengths) <= 40
    assert len(set(lengths)) > 30


def test_no_sentence_occurs_twice() -> None:
    counts = Counter(" ".join(words(sentence)) for sentence, _ in read(TRAIN) + read(DEV))
    assert [sentence for sentence, count in counts.items() if count > 1] == []


def test_no_dev_sentence_resembles_a_train_sentence() -> None:
    """Half the words at most are shared, so neither a sentence nor its near twin is in both files."""
    train = [(words(sentence), Counter(words(sentence))) for sentence, _ in read(TRAIN)]
    alike = []
    for sentence, _ in read(DEV):
        dev_words, dev_counts = words(sentence), Counter(words(sentence))
        for train_words, train_counts in train:
            # Words shared in any order bound those shared in the same order, and are much quicker to count.
            longer = max(len(dev_words), len(train_words))
            if (dev_counts & train_counts).total() > longer / 2 and shared_words(dev_words, train_words) > 0.5:
                alike.append((sentence, " ".join(train_words)))
    assert alike == []


def test_no_label_has_most_of_the_long_sentences() -> None:
    lengths = {label: [len(s.split()) for s, other in read(TRAIN) if other == label] for label in LABELS}
    means = [sum(values) / len(values) for values in lengths.values()]
    assert abs(means[0] - means[1]) < 1.5


def test_bag_of_words_learns_something_but_not_all() -> None:
    """A bag of words (scikit-learn's logistic regression on word counts) beats chance and leaves room for a model."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    train_sentences, train_labels = zip(*read(TRAIN), strict=True)
    dev_sentences, dev_labels = zip(*read(DEV), strict=True)
    model = make_pipeline(CountVectorizer(), LogisticRegression(max_iter=1000)).fit(train_sentences, train_labels)
    assert 0.6 < model.score(dev_sentences, dev_labels) < 0.85
