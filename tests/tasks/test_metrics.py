"""Scores against cases computed by hand."""

import logging

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks.metrics import (
    exact_score,
    f1_score,
    f1_score_with_empty,
    normalize_answer,
    squad_v1_metrics,
    squad_v2_metrics,
)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Cat,  sat!", "cat sat"),
        ("An apple a day", "apple day"),
        ("theater", "theater"),
        ("a-the", "athe"),  # punctuation goes first, so no article is left
        ("“the” cat", "“ ” cat"),  # only ASCII punctuation
        ("the", ""),
    ],
)
def test_normalization(text: str, normal: str) -> None:
    assert normalize_answer(text) == normal


@pytest.mark.parametrize(
    ("prediction", "gold", "exact", "f1"),
    [
        ("The cat", "cat.", 1.0, 1.0),
        ("the black cat", "cat", 0.0, 2 / 3),  # precision 1/2, recall 1
        ("cat cat", "cat dog dog", 0.0, 0.4),  # shared 1: precision 1/2, recall 1/3
        ("dog", "cat", 0.0, 0.0),
        ("", "cat", 0.0, 0.0),
    ],
)
def test_scores_of_one_answer(prediction: str, gold: str, exact: float, f1: float) -> None:
    assert exact_score(prediction, gold) == exact
    assert f1_score(prediction, gold) == pytest.approx(f1)
    assert f1_score_with_empty(prediction, gold) == pytest.approx(f1)


def test_empty_answers_differ_between_versions() -> None:
    assert f1_score("", "the") == 0.0
    assert f1_score_with_empty("", "the") == 1.0
    assert f1_score_with_empty("", "cat") == 0.0


def test_version_1_takes_the_best_gold_and_counts_unanswered(caplog: pytest.LogCaptureFixture) -> None:
    golds = {"a": ["dog", "the cat"], "b": ["black cat"], "c": ["x"], "d": ["y"]}
    with caplog.at_level(logging.WARNING, "twinquant"):
        metrics = squad_v1_metrics(golds, {"a": "cat", "b": "cat"})
    assert metrics == {"exact_match": 25.0, "f1": pytest.approx(100 * (1 + 2 / 3) / 4)}
    (record,) = caplog.records
    assert "2 question(s) have no prediction" in record.getMessage() and "c" in record.getMessage()


def test_version_2() -> None:
    golds = {"a": ["the cat"], "b": ["black cat"], "c": [], "d": []}
    predictions = {"a": "cat", "b": "cat", "c": "", "d": "dog"}
    odds = {"a": -3.0, "b": -1.0, "c": 2.0, "d": -2.0}
    metrics = squad_v2_metrics(golds, predictions, odds)
    f1_b = 2 / 3
    assert metrics == {
        "exact": 50.0, "f1": pytest.approx(25 * (2 + f1_b)), "total": 4,
        "HasAns_exact": 50.0, "HasAns_f1": pytest.approx(50 * (1 + f1_b)), "HasAns_total": 2,
        "NoAns_exact": 50.0, "NoAns_f1": 50.0, "NoAns_total": 2,
        # From 2 right ("no answer" everywhere) to 3 with a, 2 with d, 2 (f1: 2 2/3) with b.
        "best_exact": 75.0, "best_exact_thresh": -3.0, "best_f1": 75.0, "best_f1_thresh": -3.0,
        "exact_match": 50.0,
    }  # fmt: skip


def test_version_2_without_odds_and_of_one_kind() -> None:
    metrics = squad_v2_metrics({"a": ["cat"]}, {"a": "cat"})
    assert set(metrics) == {"exact", "f1", "total", "HasAns_exact", "HasAns_f1", "HasAns_total", "exact_match"}
    assert squad_v2_metrics({"a": []}, {"a": ""})["NoAns_exact"] == 100.0
    assert squad_v2_metrics({"a": ["the"]}, {"a": ""})["exact"] == 100.0  # a gold that normalizes to nothing


def test_version_2_does_not_count_missing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "twinquant"):
        metrics = squad_v2_metrics({"a": ["cat"], "b": ["dog"]}, {"a": "cat"}, {"a": 0.0})
    assert metrics["total"] == 1 and metrics["exact"] == 100.0
    assert "1 question(s) have no prediction" in caplog.text


words = st.lists(st.sampled_from(["cat", "dog", "the", "Sat", "mat!", ""]), max_size=6).map(" ".join)


@given(words, words)
def test_properties(prediction: str, gold: str) -> None:
    f1 = f1_score_with_empty(prediction, gold)
    assert 0.0 <= exact_score(prediction, gold) <= f1 <= 1.0
    assert f1 == pytest.approx(f1_score_with_empty(gold, prediction))
    assert f1_score_with_empty(gold, gold) == 1.0


@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.tuples(st.sampled_from(["cat", "dog"]), st.sampled_from(["cat", "dog", None]), st.integers(-99, 99)),
        min_size=1,
    )
)
def test_best_threshold_is_the_best_of_all(cases: dict[str, tuple[str, str | None, int]]) -> None:
    golds = {key: [] if gold is None else [gold] for key, (_, gold, _) in cases.items()}
    predictions = {key: prediction for key, (prediction, _, _) in cases.items()}
    odds = {key: float(value) for key, (_, _, value) in cases.items()}
    assume(len(set(odds.values())) == len(odds))  # equal odds are admitted one by one, as the official script does

    def exact_at(threshold: float) -> float:
        kept = {key: "" if odds[key] > threshold else prediction for key, prediction in predictions.items()}
        return squad_v2_metrics(golds, kept)["exact"]

    metrics = squad_v2_metrics(golds, predictions, odds)
    assert metrics["best_exact"] == pytest.approx(max(map(exact_at, [-100.0, *odds.values()])))
    if metrics["best_exact"] > exact_at(-100.0):
        assert exact_at(metrics["best_exact_thresh"]) == pytest.approx(metrics["best_exact"])
