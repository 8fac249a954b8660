"""Scores against numbers worked out by hand or by their formulae."""

import logging
import math

import numpy as np
import pytest

from tasks.classification_metrics import (
    Flips,
    accuracy,
    accuracy_and_class_f1,
    accuracy_and_f1,
    class_report,
    correlations,
    flips,
    matthews,
    regression_scores,
)

LABELS = np.array([1, 1, 1, 0, 0, 1, 0, 0, 0, 0])
PREDICTED = np.array([1, 1, 0, 1, 0, 1, 0, 0, 0, 0])  # 3 true positives, 1 false positive, 1 false negative


def test_accuracy() -> None:
    assert accuracy(LABELS, PREDICTED) == {"acc": 0.8}


def test_accuracy_and_f1() -> None:
    assert accuracy_and_f1(LABELS, PREDICTED) == pytest.approx({"acc": 0.8, "f1": 0.75, "acc_and_f1": 0.775})
    nothing = np.zeros(3, int)
    assert accuracy_and_f1(nothing, nothing) == {"acc": 1.0, "f1": 0.0, "acc_and_f1": 0.5}


def test_macro_f1_is_the_mean_over_classes_that_occur() -> None:
    labels, predicted = np.array([0, 0, 1, 1, 3]), np.array([0, 1, 1, 1, 3])
    assert accuracy_and_class_f1(labels, predicted, 5) == pytest.approx({"acc": 0.8, "f1_macro": (2 / 3 + 0.8 + 1) / 3})
    assert accuracy_and_class_f1(LABELS, PREDICTED, 2) == pytest.approx({"acc": 0.8, "f1": 0.75})


def test_matthews() -> None:
    assert matthews(LABELS, PREDICTED) == pytest.approx({"mcc": (3 * 5 - 1 * 1) / math.sqrt(4 * 4 * 6 * 6)})
    assert matthews(LABELS, np.ones(10, int)) == {"mcc": 0.0}


def test_correlations() -> None:
    labels, predicted = np.array([0.0, 1.0, 2.0, 3.0, 5.0]), np.array([0.5, 0.0, 2.0, 9.0, 8.0], np.float32)
    scores = correlations(labels, predicted)
    x, y = labels - labels.mean(), predicted.astype(float) - predicted.mean()
    assert scores["pearson"] == pytest.approx((x @ y) / math.sqrt((x @ x) * (y @ y)))
    assert scores["spearmanr"] == pytest.approx(1 - 6 * 4 / (5 * 24))  # ranks differ by 1 at four places
    assert scores["corr"] == pytest.approx((scores["pearson"] + scores["spearmanr"]) / 2)
    errors = np.array([0.25, 1.0, 0.0, 36.0, 9.0])
    assert regression_scores(labels, predicted) == pytest.approx(scores | {"mse": errors.mean()})


@pytest.mark.parametrize(
    ("labels", "predicted"), [([1.0, 2.0], [3.0, 3.0]), ([2.0, 2.0], [1.0, 2.0]), ([1.0], [1.0])],
    ids=["constant-predictions", "constant-labels", "one-row"],
)  # fmt: skip
def test_undefined_correlations(labels: list[float], predicted: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "twinquant"):
        scores = correlations(np.array(labels), np.array(predicted))
    assert scores == {"pearson": 0.0, "spearmanr": 0.0, "corr": 0.0} and "given as 0" in caplog.text


def test_report_has_four_digits_of_each_class() -> None:
    lines = class_report(LABELS, PREDICTED, ["bad", "good", "unseen"]).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["good"] == ["0.7500", "0.7500", "0.7500", "4"]
    assert rows["bad"] == ["0.8333", "0.8333", "0.8333", "6"]
    assert rows["accuracy"] == ["0.8000", "10"] and "unseen" not in rows


def test_flips() -> None:
    labels = np.zeros(12, int)
    parent = np.array([0] * 8 + [1] * 4)
    child = np.array([1] * 5 + [0] * 3 + [0] + [2] + [1] * 2)
    # 5 lost, 1 won, one wrong answer became another; two-sided binomial: 2 * (C(6,0) + C(6,1)) / 2**6
    assert flips(labels, parent, child) == Flips(5, 1, 7, pytest.approx(2 * 7 / 64))  # type: ignore[arg-type]


def test_no_flips() -> None:
    assert flips(LABELS, PREDICTED, PREDICTED) == Flips(0, 0, 0, 1.0)
    with pytest.raises(ValueError, match="expected as many"):
        flips(LABELS, PREDICTED, PREDICTED[1:])
