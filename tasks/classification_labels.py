"""From the labels in files to class indexes, or to values of a regression."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np

from tasks.classification_files import is_number, listed, read_text, split_lines
from twinquant.errors import UserError

Place = Callable[[int], str]
"""Gives the place of a row for messages: "dev.tsv, line 7"."""

_LARGEST = float(np.finfo(np.float32).max)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)


def class_indexes(labels: Sequence[str], names: Sequence[str], at: Place, known_from: str = "") -> np.ndarray:
    """Index among `names` of every label: int32 [N].

    `known_from` says for messages where the names come from ("train.tsv"). Raises UserError naming the first row whose
    label is none of them.
    """
    position = {name: index for index, name in enumerate(names)}
    indexes = np.array([position.get(label, -1) for label in labels], np.int32)
    unknown = np.flatnonzero(indexes < 0)
    if len(unknown):
        row = int(unknown[0])
        found = f"the label is {labels[row]!r}" if labels[row] else "the label is missing"
        known = f"{listed(names)}, the labels of {known_from}" if known_from else listed(names)
        more = f" ({len(unknown)} rows have such a label)" if len(unknown) > 1 else ""
        raise UserError(f"{at(row)}: {found}; expected one of {known}{more}")
    return indexes


def class_file_indexes(labels: Sequence[str], names: Sequence[str], at: Place, class_file: str | Path) -> np.ndarray:
    """As `class_indexes`, where a label may also be the number of a line of the class file, from 0.

    Where a class is itself called by a number, labels are names only: "3" would be two classes.
    """
    if any(map(is_whole, names)):
        return class_indexes(labels, names, at, str(class_file))
    resolved = list(labels)
    for row, label in enumerate(labels):
        if is_whole(label):
            number = Decimal(label)
            if not 0 <= number < len(names):
                raise UserError(
                    f"{at(row)}: the label is {label}, but {class_file} names {len(names)} classes "
                    f"(0 to {len(names) - 1})"
                )
            resolved[row] = names[int(number)]
    return class_indexes(resolved, names, at, str(class_file))


def regression_values(labels: Sequence[str], at: Place) -> np.ndarray:
    """The labels as numbers: float32 [N]. Raises UserError naming the first that is no finite number."""
    values = np.zeros(len(labels), np.float32)
    for row, label in enumerate(labels):
        value = float(label) if is_number(label) else math.nan
        if not abs(value) <= _LARGEST:
            found = repr(label) if label else "missing"
            raise UserError(f"{at(row)}: the label of a regression is {found}; expected a finite number")
        values[row] = value
    return values


def distinct_labels(labels: Sequence[str], at: Place, fewest: int = 2) -> list[str] | None:
    """The classes that the labels of a file make: sorted, whole numbers by value.

    None where the labels are values of a regression: one of them is a number but not a whole one ("2.5", "3.0").
    Raises UserError for a row without label, and where all labels are the same and `fewest` is 2.
    """
    if "" in labels:
        raise UserError(f"{at(labels.index(''))}: the label is missing")
    distinct = set(labels)
    if any(is_number(label) and not is_whole(label) for label in distinct):
        return None
    if len(distinct) < fewest:
        raise UserError(f"{at(0)}: this and all other labels are {labels[0]!r}; expected at least two classes")
    if not all(map(is_whole, distinct)):
        return sorted(distinct)
    # "1", "01" and "+1" are classes of one value; the order of a set differs from run to run.
    return sorted(distinct, key=lambda label: (Decimal(label), label))


def read_class_file(path: str | Path) -> list[str]:
    """The names in a file of classes, one a line, in the order of the logits.

    Raises UserError where the file cannot be read, names less than two, or has a blank line or a name twice.
    """
    names = [line.strip() for line in split_lines(read_text(path, "class file"))]
    for line, name in enumerate(names, 1):
        if not name:
            raise UserError(f"{path}, line {line}: blank; expected the name of a class on every line")
        if name in names[: line - 1]:
            raise UserError(f"{path}, line {line}: the class {name!r} is named before, on line {names.index(name) + 1}")
    if len(names) < 2:
        raise UserError(f"class file {path} names one class; expected at least two, one a line")
    return names


def is_whole(label: str) -> bool:
    """Whether a label is a whole number in digits, of which there may be more than int() takes (some thousands)."""
    return _WHOLE.fullmatch(label) is not None
