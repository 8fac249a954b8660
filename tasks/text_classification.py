"""One's own texts with labels, from csv, tsv, json or txt files: classes, or numbers for a regression."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from tasks.classification_columns import USUAL_NAMES, choose_columns
from tasks.classification_examples import ClassificationExamples
from tasks.classification_files import Table, is_number, listed, read_table
from tasks.classification_labels import (
    class_file_indexes,
    class_indexes,
    distinct_labels,
    is_whole,
    read_class_file,
    regression_values,
)
from tasks.classification_metrics import accuracy_and_class_f1, regression_scores
from tasks.classification_source import ClassificationSource
from twinquant.errors import UserError

logger = logging.getLogger("twinquant")

_FLAGS = ("--train_file", "--validation_file", "--test_file")


class OwnDataSource(ClassificationSource):
    """Files of one's own.

    Args:
        train_file, validation_file, test_file: what `read_table` reads; each may be None until it is needed. The
            labels of the test file are optional.
        text_column: one or two names of columns; without it usual names are looked for (see `choose_columns`).
        label_column: name of a column; likewise.
        class_file: the names of the classes, one a line, in the order of the logits. Labels are then names or the
            number of a line, from 0. Without it the classes are the labels of the training file, sorted.
        do_regression: labels are values to predict. They are, too, where those of the training file are numbers and
            not all whole ("2.5", "3.0").
        label_names: the classes of a checkpoint; used where no file names any, and for the order of the classes where
            the training file has the same.
        name: in the names of files.
    """

    reports_classes = True

    def __init__(
        self,
        train_file: str | Path | None = None,
        validation_file: str | Path | None = None,
        test_file: str | Path | None = None,
        text_column: Sequence[str] = (),
        label_column: str | None = None,
        class_file: str | Path | None = None,
        do_regression: bool = False,
        label_names: Sequence[str] | None = None,
        name: str = "text_classification",
    ) -> None:
        if len(text_column) > 2:
            raise UserError(f"--text_column names {len(text_column)} columns; expected one or two")
        if label_column in text_column or len(set(text_column)) < len(text_column):
            raise UserError("--text_column and --label_column name a column twice; expected different columns")
        if do_regression and class_file is not None:
            raise UserError("--do_regression and --class_file exclude each other: a regression has no classes")
        self.name = name
        self._files = {"--train_file": train_file, "--validation_file": validation_file, "--test_file": test_file}
        self._text_column, self._label_column = tuple(text_column), label_column
        self._class_file = class_file
        self._do_regression = do_regression
        self._checkpoint_names = list(label_names) if label_names else None
        self._tables: dict[str, Table] = {}

    @property
    def main_metric(self) -> str:
        """Accuracy, or the mean of the correlations of a regression."""
        return "corr" if self.is_regression else "acc"

    @property
    def label_names(self) -> list[str] | None:
        return self._label_names

    def train(self) -> ClassificationExamples:
        return self._train

    def evaluation_sets(self) -> Mapping[str, ClassificationExamples]:
        return {"": self._validation}

    def test_sets(self) -> Mapping[str, ClassificationExamples]:
        return {"": self._test}

    def metrics(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        names = self.label_names
        if names is None:
            return regression_scores(labels, predictions)
        return accuracy_and_class_f1(labels, predictions, len(names))

    @cached_property
    def _train(self) -> ClassificationExamples:
        examples = self._examples("--train_file")
        if self._class_names is not None and examples.labels is not None:
            absent = np.setdiff1d(np.arange(len(self._class_names)), examples.labels)
            if len(absent):
                names = [self._class_names[index] for index in absent]
                logger.warning(
                    "%s names classes that %s has no example of: %s", self._class_file, examples.source, listed(names)
                )
        return examples

    @cached_property
    def _validation(self) -> ClassificationExamples:
        return self._examples("--validation_file")

    @cached_property
    def _test(self) -> ClassificationExamples:
        return self._examples("--test_file")

    @cached_property
    def _class_names(self) -> list[str] | None:
        return None if self._class_file is None else read_class_file(self._class_file)

    @cached_property
    def _label_names(self) -> list[str] | None:
        if self._do_regression:
            return None
        names = self._class_names or self._names_without_class_file()
        if names is not None:
            logger.info("%d classes: %s", len(names), listed(names))
        return names

    def _names_without_class_file(self) -> list[str] | None:
        """The classes of the first file that has labels, or of the checkpoint; None for a regression."""
        known = self._checkpoint_names
        flag = next((flag for flag in _FLAGS if self._files[flag] is not None and self._labels(flag) is not None), None)
        if flag is None:
            if known is None:
                raise UserError("the classes are unknown: expected --train_file, --class_file or a checkpoint of them")
            return known if len(known) > 1 else None
        table, labels = self._table(flag), self._labels(flag) or []
        if flag != "--train_file" and known is not None and len(known) == 1:
            return None
        # To be evaluated, one row is enough where the checkpoint knows the classes.
        names = distinct_labels(labels, table.at, fewest=2 if known is None or flag == "--train_file" else 1)
        if names is None:
            logger.info(
                "%s: labels such as %s are not whole, so they are values to predict (a regression); classes need whole "
                "numbers, names or --class_file", table.source, next(filter(_is_fraction, labels)),
            )  # fmt: skip
            return None
        if known is not None and sorted(known) == sorted(names):
            return known
        if flag == "--train_file":
            return names
        if known is None:
            logger.warning(
                "the classes are the %d labels of %s in sorted order, for want of --train_file, --class_file or a "
                "checkpoint that names them", len(names), table.source,
            )  # fmt: skip
            return names
        nameless = known == [f"LABEL_{index}" for index in range(len(known))]
        return [str(index) for index in range(len(known))] if nameless and all(map(is_whole, names)) else known

    def _examples(self, flag: str) -> ClassificationExamples:
        table, labels = self._table(flag), self._labels(flag)
        text_columns, label_column = self._columns(flag)
        texts = [table.column(name) for name in text_columns]
        numbers = None if labels is None else self._numbers(labels, table)
        logger.info(
            "%s: %d rows, text in %s, %s", table.source, len(table), listed(text_columns),
            "labels unknown" if labels is None else f"label in {label_column!r}",
        )  # fmt: skip
        return ClassificationExamples(texts[0], texts[1] if len(texts) == 2 else None, numbers, table.source)

    def _numbers(self, labels: Sequence[str], table: Table) -> np.ndarray:
        """Class indexes or values."""
        names = self.label_names
        if names is None:
            return regression_values(labels, table.at)
        if self._class_file is not None:
            return class_file_indexes(labels, names, table.at, self._class_file)
        train = self._files["--train_file"]
        known_from = str(train) if train is not None and str(train) != table.source else ""
        return class_indexes(labels, names, table.at, known_from)

    def _labels(self, flag: str) -> list[str] | None:
        """The labels as the file writes them; None where a test file has none, or only "" (null), -1 or -1.0."""
        column = self._columns(flag)[1]
        if column is None:
            return None
        table = self._table(flag)
        if flag == "--test_file" and column in table.names:
            position = table.names.index(column)
            if all(row[position] is None for row in table.rows):  # null in JSON
                return None
        labels = [label.strip() for label in table.column(column)]
        return None if flag == "--test_file" and set(labels) in ({""}, {"-1"}, {"-1.0"}) else labels

    def _table(self, flag: str) -> Table:
        path = self._files[flag]
        if path is None:
            raise UserError(f"{flag} is missing; expected a csv, tsv, txt or json file of texts and labels")
        if flag not in self._tables:
            chosen = [*self._text_column, *([self._label_column] if self._label_column else [])]
            self._tables[flag] = read_table(path, USUAL_NAMES, chosen)
        return self._tables[flag]

    def _columns(self, flag: str) -> tuple[tuple[str, ...], str | None]:
        """The text columns and the label column of a file; later files take those found in the first one."""
        table, texts, label = self._table(flag), self._text_column, self._label_column
        model = next(other for other in _FLAGS if self._files[other] is not None)
        if model != flag:
            first = self._table(model)
            found = self._columns(model)
            # Columns have the same names in both, unless one file has no header or is a txt.
            if (table.has_header and first.has_header) or set(found[0]) <= set(table.names):
                texts, label = found
        chosen = choose_columns(table, texts, label, needs_label=flag != "--test_file")
        if model != flag and len(chosen[0]) != len(found[0]):
            raise UserError(
                f"{table.source}: found the text column(s) {listed(chosen[0])}, but {first.source} has "
                f"{listed(found[0])}; expected as many in both"
            )
        return chosen


def _is_fraction(label: str) -> bool:
    return is_number(label) and not is_whole(label)
