"""What a row answers on the data: scores, and agreement with its checkpoint's fp32."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.check import are_values
from export.compare.process import RowProcess
from tasks.base import Task
from tasks.classification import ClassificationTask
from tasks.classification_metrics import flips
from tasks.squad import SquadTask
from training.prediction import predict_all


@dataclass(frozen=True)
class Accuracy:
    """A row's pass over the data.

    answers: the text or class of every example, by "<set>/<id or number>"; of a regression, the value. right: which of
    them are right, where that is known. scores: in percent, by name; main_metric: the name of the one that tells which
    model is better. rows: the model's, of which a long example has several. seconds: of the predictions alone.
    peak_bytes: the process's largest resident memory, with the framework, from its start to the end of the pass.
    """

    answers: dict[str, Any]
    right: dict[str, bool]
    scores: dict[str, float]
    main_metric: str | None
    rows: int
    seconds: float
    peak_bytes: int

    @property
    def examples_per_second(self) -> float:
        """Questions or texts by second of prediction."""
        return len(self.answers) / self.seconds


@dataclass(frozen=True)
class Agreement:
    """How a row's answers differ from those of its checkpoint's fp32 row.

    answers: how many were compared; equal: how many are the same. lost, won: how many only the fp32 row, only this row
    answers right; p_value: of McNemar's exact test on those two; None where the right answers are not known.
    """

    answers: int
    equal: int
    lost: int | None
    won: int | None
    p_value: float | None

    @property
    def percent(self) -> float:
        """Equal answers in percent."""
        return 100.0 * self.equal / self.answers


def measure_accuracy(process: RowProcess, task: Task, batch_size: int, longest: int) -> Accuracy:
    """Predicts all sets of a task; `longest`: max_seq_length. Raises RowError where the row's process fails."""
    answers: dict[str, Any] = {}
    right: dict[str, bool] = {}
    scores: dict[str, float] = {}
    rows, before = 0, process.seconds
    for prediction_set in task.prediction_sets():
        features = prediction_set.features()
        outputs = predict_all(process, features, batch_size, longest)
        rows += len(features)
        found, found_scores = prediction_set.judge(outputs)
        scores |= found_scores
        answers |= {f"{prediction_set.name}/{key}": value for key, value in found.items()}
        known = right_answers(task, prediction_set.name, found)
        right |= {f"{prediction_set.name}/{key}": value for key, value in known.items()}
    points = 1.0 if isinstance(task, SquadTask) else 100.0  # SQuAD's scores are percentages already
    return Accuracy(
        answers=answers,
        right=right,
        scores={name: points * value for name, value in shown_scores(scores).items()},
        main_metric=main_metric(task, scores),
        rows=rows,
        seconds=process.seconds - before,
        peak_bytes=process.peak_bytes(),
    )


def right_answers(task: Task, name: str, answers: Mapping[Any, Any]) -> dict[Any, bool]:
    """Which answers of the set `name` are right, by id or number; {} where that is unknown or, of values, senseless."""
    if isinstance(task, SquadTask):
        return task.exact_matches(answers)
    if not isinstance(task, ClassificationTask) or task.num_labels == 1:
        return {}
    labels = task.predictions[name].labels
    if labels is None:
        return {}
    return {key: bool(value == labels[key]) for key, value in answers.items()}


def main_metric(task: Task, scores: Mapping[str, float]) -> str | None:
    """Which of the scores is the task's main one; None where there are none."""
    names = list(scores)
    # The task tells a value, not a name: it is given values that tell themselves apart.
    return names[int(task.main_score(dict(zip(names, range(len(names)), strict=True))))] if names else None


def shown_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """The scores that belong in a table: of SQuAD 2.0's many the usual two; no error of a regression."""
    if "exact_match" in scores:
        return {name: scores[name] for name in ("exact_match", "f1")}
    return {name: value for name, value in scores.items() if not name.startswith("mse")}


def agreement(reference: Accuracy, row: Accuracy) -> Agreement | None:
    """Compares the answers of two rows on the same data; None for values, which are never quite equal."""
    if are_values(reference.answers):
        return None
    equal = sum(row.answers.get(key) == value for key, value in reference.answers.items())
    if not reference.right:
        return Agreement(len(reference.answers), equal, None, None, None)
    expected = np.array(list(reference.right.values()))
    found = np.array([row.right[key] for key in reference.right])
    result = flips(np.ones_like(expected), expected, found)
    return Agreement(len(reference.answers), equal, result.parent_only_right, result.child_only_right, result.p_value)
