"""Scores of classifications and regressions, by scikit-learn and SciPy, as fractions of 1.

The keys are those of the old Hugging Face run_glue.py. The two libraries are imported where they are used: they take
seconds to load.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

logger = logging.getLogger("twinquant")


def accuracy(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Key "acc": the fraction of class indexes that are right."""
    from sklearn.metrics import accuracy_score

    return {"acc": float(accuracy_score(labels, predictions))}


def accuracy_and_f1(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Keys "acc", "f1" of class 1 among two (0 where it never occurs), and their mean "acc_and_f1"."""
    scores = accuracy_and_class_f1(labels, predictions, 2)
    return scores | {"acc_and_f1": (scores["acc"] + scores["f1"]) / 2}


def accuracy_and_class_f1(labels: np.ndarray, predictions: np.ndarray, classes: int) -> dict[str, float]:
    """Keys "acc", and "f1" of class 1 of two classes, or "f1_macro", the mean over the classes that occur, of more."""
    from sklearn.metrics import f1_score

    if classes == 2:
        f1 = {"f1": float(f1_score(labels, predictions, zero_division=0.0))}
    else:
        f1 = {"f1_macro": float(f1_score(labels, predictions, average="macro", zero_division=0.0))}
    return accuracy(labels, predictions) | f1


def matthews(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Key "mcc": Matthews' correlation, 0 where all labels or all predictions are the same."""
    from sklearn.metrics import matthews_corrcoef

    return {"mcc": float(matthews_corrcoef(labels, predictions))}


def correlations(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Keys "pearson", "spearmanr" and their mean "corr" of values float [N].

    All three are 0, with a warning, where they are not defined: all labels or all predictions are the same.
    """
    from scipy.stats import pearsonr, spearmanr

    labels, predictions = labels.astype(np.float64), predictions.astype(np.float64)
    if len(labels) < 2 or np.ptp(labels) == 0 or np.ptp(predictions) == 0:
        logger.warning("the correlations are given as 0: all labels or all predictions are the same value")
        return {"pearson": 0.0, "spearmanr": 0.0, "corr": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nearly constant input: the value is what it is
        pearson, spearman = float(pearsonr(labels, predictions)[0]), float(spearmanr(labels, predictions)[0])
    return {"pearson": pearson, "spearmanr": spearman, "corr": (pearson + spearman) / 2}


def regression_scores(labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
    """Key "mse" beside the correlations."""
    from sklearn.metrics import mean_squared_error

    error = mean_squared_error(labels.astype(np.float64), predictions.astype(np.float64))
    return {"mse": float(error)} | correlations(labels, predictions)


def class_report(labels: np.ndarray, predictions: np.ndarray, names: Sequence[str]) -> str:
    """A table of precision, recall, F1 and number of examples of each class that occurs, with 4 digits."""
    from sklearn.metrics import classification_report

    present = np.union1d(labels, predictions).astype(int).tolist()
    return classification_report(
        labels,
        predictions,
        labels=present,
        target_names=[names[index] for index in present],
        digits=4,
        zero_division=0.0,
    )


@dataclass(frozen=True)
class Flips:
    """How a model's right and wrong answers differ from its parent's, on the same examples.

    parent_only_right, child_only_right: number of examples that only the one answers right. changed: number of
    examples with different predictions. p_value: of McNemar's exact test, two-sided: the chance of so uneven a split
    where neither model is better.
    """

    parent_only_right: int
    child_only_right: int
    changed: int
    p_value: float


def flips(labels: np.ndarray, parent: np.ndarray, child: np.ndarray) -> Flips:
    """Compares the predicted classes of two models: int [N] each."""
    from scipy.stats import binomtest

    labels, parent, child = np.asarray(labels), np.asarray(parent), np.asarray(child)
    if not labels.shape == parent.shape == child.shape:
        raise ValueError(f"{labels.shape} labels, {parent.shape} and {child.shape} predictions; expected as many")
    parent_right, child_right = parent == labels, child == labels
    lost, won = int((parent_right & ~child_right).sum()), int((child_right & ~parent_right).sum())
    p_value = float(binomtest(lost, lost + won, 0.5).pvalue) if lost + won else 1.0
    return Flips(lost, won, int((parent != child).sum()), p_value)


@dataclass(frozen=True)
class ValueDrift:
    """How a regression's values differ from its parent's: absolute differences, and Pearson's correlation."""

    mean_difference: float
    largest_difference: float
    pearson: float


def value_drift(parent: np.ndarray, child: np.ndarray) -> ValueDrift:
    """Compares the predicted values of two models: float [N] each. Values that are all equal correlate by 0."""
    first, second = np.asarray(parent, np.float64), np.asarray(child, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"{first.shape} and {second.shape} predictions; expected as many")
    differences = np.abs(first - second)
    return ValueDrift(float(differences.mean()), float(differences.max()), correlations(first, second)["pearson"])
