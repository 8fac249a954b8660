"""The nine GLUE tasks from local TSV folders, as download_glue_data.py lays them out.

Columns, labels and metrics are those of Hugging Face's processors (transformers 2.x, data/processors/glue.py). A field
ends at a tab and a row at the end of its line; quotes are characters like any other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tasks.classification_examples import ClassificationExamples
from tasks.classification_files import read_text, split_lines
from tasks.classification_labels import class_indexes, regression_values
from tasks.classification_metrics import accuracy, accuracy_and_f1, correlations, matthews
from tasks.classification_source import ClassificationSource
from twinquant.errors import UserError

logger = logging.getLogger("twinquant")

LAST = -1  # the label is in the last column
_RAW_TRAIN, _RAW_TEST, _DEV_IDS = "msr_paraphrase_train.txt", "msr_paraphrase_test.txt", "dev_ids.tsv"


@dataclass(frozen=True)
class GlueTask:
    """One row of the table of tasks.

    folder: its folder in the GLUE download. text_columns: of train and dev; test_columns: of test. label_column: of
    train and dev. labels: in the order of the logits; None for a regression. has_header: of train and dev; test always
    has one. suffixes: its sets, "" or "mm" (MNLI's mismatched one).
    """

    folder: str
    text_columns: tuple[int, ...]
    test_columns: tuple[int, ...]
    label_column: int
    labels: tuple[str, ...] | None
    metrics: Callable[[np.ndarray, np.ndarray], dict[str, float]]
    main_metric: str
    has_header: bool = True
    suffixes: tuple[str, ...] = ("",)


_BINARY = ("0", "1")
_ENTAILMENT = ("entailment", "not_entailment")
_NLI = ("contradiction", "entailment", "neutral")

GLUE_TASKS = {
    "cola": GlueTask("CoLA", (3,), (1,), 1, _BINARY, matthews, "mcc", has_header=False),
    "sst-2": GlueTask("SST-2", (0,), (1,), 1, _BINARY, accuracy, "acc"),
    "mrpc": GlueTask("MRPC", (3, 4), (3, 4), 0, _BINARY, accuracy_and_f1, "acc_and_f1"),
    "sts-b": GlueTask("STS-B", (7, 8), (7, 8), LAST, None, correlations, "corr"),
    "qqp": GlueTask("QQP", (3, 4), (1, 2), 5, _BINARY, accuracy_and_f1, "acc_and_f1"),
    "mnli": GlueTask("MNLI", (8, 9), (8, 9), LAST, _NLI, accuracy, "acc", suffixes=("", "mm")),
    "mnli-mm": GlueTask("MNLI", (8, 9), (8, 9), LAST, _NLI, accuracy, "acc", suffixes=("mm",)),
    "qnli": GlueTask("QNLI", (1, 2), (1, 2), LAST, _ENTAILMENT, accuracy, "acc"),
    "rte": GlueTask("RTE", (1, 2), (1, 2), LAST, _ENTAILMENT, accuracy, "acc"),
    "wnli": GlueTask("WNLI", (1, 2), (1, 2), LAST, _BINARY, accuracy, "acc"),
}


def glue_task_name(name: str) -> str:
    """The name in `GLUE_TASKS` of a task spelled in any usual way: "MRPC", "sst2", "STS-B", "mnli_mismatched".

    Raises UserError for any other name.
    """
    spelled = "".join(character for character in name.lower() if character.isalnum())
    spelled = spelled.replace("mismatched", "mm").removesuffix("matched")
    for known in GLUE_TASKS:
        if spelled == known.replace("-", ""):
            return known
    raise UserError(f"--task_name is {name!r}; expected one of {', '.join(GLUE_TASKS)}")


class GlueSource(ClassificationSource):
    """A GLUE task in a folder.

    Args:
        task_name: as `glue_task_name` takes it.
        data_dir: the task's folder, or the folder above it (glue/MRPC or glue).
        label_names: the classes in the order that a checkpoint was trained for, where it differs from the table's; not
            used unless these are the task's classes.
    """

    def __init__(self, task_name: str, data_dir: str | Path, label_names: Sequence[str] | None = None) -> None:
        self.name = glue_task_name(task_name)
        self._task = GLUE_TASKS[self.name]
        self._data_dir = Path(data_dir)
        self._names = None if self._task.labels is None else list(self._task.labels)
        if self._names is not None and label_names is not None and sorted(label_names) == sorted(self._names):
            self._names = list(label_names)

    @property
    def label_names(self) -> list[str] | None:
        return self._names

    @property
    def main_metric(self) -> str:
        return self._task.main_metric

    def train(self) -> ClassificationExamples:
        return self._train

    def evaluation_sets(self) -> Mapping[str, ClassificationExamples]:
        return self._evaluation_sets

    def test_sets(self) -> Mapping[str, ClassificationExamples]:
        return self._test_sets

    def metrics(self, labels: np.ndarray, predictions: np.ndarray) -> dict[str, float]:
        if self._names is not None and self._task.labels is not None:
            # F1 is that of the class 1 of the benchmark, wherever the checkpoint has it.
            order = np.array([self._task.labels.index(name) for name in self._names])
            labels, predictions = order[labels], order[predictions]
        return self._task.metrics(labels, predictions)

    def submission_file(self, suffix: str) -> str:
        """The official names: MRPC.tsv, MNLI-m.tsv, MNLI-mm.tsv."""
        if self._task.folder == "MNLI":
            return f"MNLI-{suffix or 'm'}.tsv"
        return f"{self._task.folder}.tsv"

    @cached_property
    def _train(self) -> ClassificationExamples:
        return self._labeled("train.tsv")

    @cached_property
    def _evaluation_sets(self) -> dict[str, ClassificationExamples]:
        return {suffix: self._labeled(self._set_file("dev", suffix)) for suffix in self._task.suffixes}

    @cached_property
    def _test_sets(self) -> dict[str, ClassificationExamples]:
        return {suffix: self._unlabeled(self._set_file("test", suffix)) for suffix in self._task.suffixes}

    def _set_file(self, name: str, suffix: str) -> str:
        if self._task.folder != "MNLI":
            return f"{name}.tsv"
        return f"{name}_{'mismatched' if suffix else 'matched'}.tsv"

    @cached_property
    def _folder(self) -> Path:
        if not self._data_dir.is_dir():
            raise UserError(f"--data_dir {self._data_dir} is not a folder; expected the folder of the GLUE data")
        wanted = self._task.folder.replace("-", "").lower()
        inside = [path for path in sorted(self._data_dir.iterdir()) if path.is_dir()]
        named = [path for path in inside if path.name.replace("-", "").lower() == wanted]
        return named[0] if named else self._data_dir

    def _labeled(self, file: str) -> ClassificationExamples:
        """A training or dev file."""
        task = self._task
        if self.name == "mrpc" and not (self._folder / file).exists() and (self._folder / _RAW_TRAIN).exists():
            rows = self._split_raw_rows(dev=file == "dev.tsv")
        else:
            columns = max(*task.text_columns, task.label_column) + 1
            if task.label_column == LAST:
                columns = max(task.text_columns) + 2
            rows = self._read(file, columns, task.has_header)
        labels = [fields[task.label_column].strip() for fields in rows.fields]
        names = self.label_names
        values = regression_values(labels, rows.at) if names is None else class_indexes(labels, names, rows.at)
        return self._examples(rows, task.text_columns, values, None)

    def _unlabeled(self, file: str) -> ClassificationExamples:
        """A test file."""
        columns = self._task.test_columns
        if self.name == "mrpc" and not (self._folder / file).exists() and (self._folder / _RAW_TEST).exists():
            rows = self._read(_RAW_TEST, 5, True)  # its labels stay unused, as the benchmark has it
            return self._examples(rows, columns, None, [str(index) for index in range(len(rows.fields))])
        rows = self._read(file, max(columns) + 1, True)
        return self._examples(rows, columns, None, [fields[0].strip() for fields in rows.fields])

    def _examples(
        self, rows: _Rows, columns: tuple[int, ...], labels: np.ndarray | None, ids: list[str] | None
    ) -> ClassificationExamples:
        texts = [[fields[column] for fields in rows.fields] for column in columns]
        return ClassificationExamples(texts[0], texts[1] if len(texts) == 2 else None, labels, str(rows.path), ids)

    def _split_raw_rows(self, dev: bool) -> _Rows:
        """The rows of MRPC's raw training file that dev_ids.tsv puts into dev, or those it does not."""
        if not (self._folder / _DEV_IDS).exists():
            raise UserError(
                f"{self._folder} has {_RAW_TRAIN} but no {_DEV_IDS}; expected that file of pairs of ids, which tells "
                "dev from train, or train.tsv and dev.tsv"
            )
        pairs = {tuple(fields[:2]) for fields in self._read(_DEV_IDS, 2, False).fields}
        rows = self._read(_RAW_TRAIN, 5, True)
        kept = [row for row, fields in enumerate(rows.fields) if ((fields[1], fields[2]) in pairs) == dev]
        if not kept:
            raise UserError(f"{rows.path} has no row for {'dev' if dev else 'train'} by the ids of {_DEV_IDS}")
        return _Rows(rows.path, [rows.fields[row] for row in kept], [rows.lines[row] for row in kept])

    def _read(self, file: str, columns: int, has_header: bool) -> _Rows:
        """The rows of a file, which must have as many columns as its header, and at least `columns`."""
        path = self._folder / file
        if not path.exists():
            raw = f" or {_RAW_TRAIN} and {_DEV_IDS}, {_RAW_TEST}" if self.name == "mrpc" else ""
            raise UserError(f"{self._folder} has no {file}; expected the {self._task.folder} files of GLUE{raw}")
        fields = [line.split("\t") for line in split_lines(read_text(path, "GLUE file"))]
        lines = list(range(1, len(fields) + 1))
        if has_header:
            if len(fields[0]) < columns:
                raise UserError(
                    f"{path}, line 1: the header has {len(fields[0])} column(s); {self._task.folder} has at least "
                    f"{columns} there"
                )
            columns = len(fields[0])
            fields, lines = fields[1:], lines[1:]
            if not fields:
                raise UserError(f"{path} has no rows below its header")
        short = [row for row, row_fields in enumerate(fields) if len(row_fields) < columns]
        if short:
            message = f"{path}, line {lines[short[0]]}: found {len(fields[short[0]])} column(s), expected {columns}"
            if self.name != "qqp" or len(short) == len(fields):
                raise UserError(message)
            logger.warning("%s: skipped %d short row(s); %s", path, len(short), message)  # its files do have some
            dropped = set(short)
            lines = [line for row, line in enumerate(lines) if row not in dropped]
            fields = [row_fields for row, row_fields in enumerate(fields) if row not in dropped]
        wide = [row for row, row_fields in enumerate(fields) if len(row_fields) > columns]
        if wide:
            logger.warning(
                "%s: %d row(s) have more than %d columns, the first on line %d",
                path, len(wide), columns, lines[wide[0]],
            )  # fmt: skip
        return _Rows(path, fields, lines)


@dataclass(frozen=True)
class _Rows:
    """Rows of fields, and the line of the file that each is on."""

    path: Path
    fields: list[list[str]]
    lines: list[int]

    def at(self, row: int) -> str:
        return f"{self.path}, line {self.lines[row]}"
