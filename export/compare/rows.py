"""The rows of the table: which there are, which were asked for, and what is known of each."""

import fnmatch
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from export.compare.accuracy import Accuracy, Agreement
from export.compare.latency import Latency
from export.compare.models import ModelSpec
from twinquant.errors import UserError


class Kind(NamedTuple):
    """What a row measures: a precision (see `export.settings`) in a runtime."""

    runtime: str
    precision: str

    @property
    def name(self) -> str:
        return f"{self.runtime}-{self.precision}"


# The first fp32 row of a checkpoint that can be measured is the one that the others are to agree with.
KINDS = (
    Kind("pytorch", "fp32"),
    Kind("pytorch", "int8"),
    Kind("pytorch", "int8-dynamic"),
    Kind("tensorflow", "fp32"),
    Kind("tensorflow", "int8"),
    Kind("onnxruntime", "fp32"),
    Kind("onnxruntime", "int8"),
    Kind("onnxruntime", "int8-dynamic"),
    Kind("openvino", "fp32"),
    Kind("openvino", "int8"),
)
MODULES = {"pytorch": "torch", "tensorflow": "tensorflow", "onnxruntime": "onnxruntime", "openvino": "openvino"}
EXTRAS = MODULES | {"pytorch": "pytorch", "onnxruntime": "export"}


@dataclass
class Row:
    """One row: what is to be measured, then what was found.

    Attributes:
        checkpoint: its name in the table.
        reason: why the row was not measured, or not to the end; "" where nothing is missing.
        failed: whether the reason is a defect, such as a process that died, and not something that was to be expected.
        notes: what the reader should know of the model.
        file_bytes: size of the model's files; int8_share: int8 multiplications as a share of all, 0 to 1.
        latency: by number of threads and shape ("8x128"); None where the row failed there.
    """

    checkpoint: str
    kind: Kind
    spec: ModelSpec | None = None
    reason: str = ""
    failed: bool = False
    notes: list[str] = field(default_factory=list)
    file_bytes: int | None = None
    int8_share: float | None = None
    accuracy: Accuracy | None = None
    agreement: Agreement | None = None
    latency: dict[int, dict[str, Latency]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The row's name in full: "ptq/onnxruntime-int8"."""
        return f"{self.checkpoint}/{self.kind.name}"


def checkpoint_names(paths: Sequence[str]) -> list[str]:
    """Short names of the checkpoints: their folders' where those differ, else the paths.

    A training's checkpoints are called model.ckpt-<step>, folders or not: there the folder above says more.
    Raises UserError where a checkpoint is named twice.
    """
    places = [Path(path).resolve() for path in paths]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise UserError(f"--checkpoint: {paths[number]} is named twice")
    names = []
    for place in places:
        inside = place.is_file() or Path(f"{place}.index").exists() or place.name.startswith("model.ckpt")
        names.append(place.parent.name if inside else place.name)
    return names if len(set(names)) == len(names) else [path.rstrip("/") for path in paths]


def select_rows(names: Sequence[str], patterns: Sequence[str]) -> list[Row]:
    """The rows of the checkpoints `names` that a pattern fits (all, where there are none), in the order of the table.

    Raises UserError for a pattern that fits no row.
    """
    rows = [Row(name, kind) for name in names for kind in KINDS]
    unused = [pattern for pattern in patterns if not any(matches(row, pattern) for row in rows)]
    if unused:
        raise UserError(
            f"--rows: {unused[0]!r} fits no row; expected names or patterns of "
            f"{', '.join(row.id if len(names) > 1 else row.kind.name for row in rows)}"
        )
    return [row for row in rows if not patterns or any(matches(row, pattern) for pattern in patterns)]


def matches(row: Row, pattern: str) -> bool:
    """Whether a pattern (`fnmatch`) fits a row's short or full name."""
    return any(fnmatch.fnmatchcase(name, pattern) for name in (row.kind.name, row.id))


def missing_framework(kind: Kind) -> str:
    """Why the runtime cannot be used here, found without importing it; "" where it can."""
    module = MODULES[kind.runtime]
    if importlib.util.find_spec(module) is not None:
        return ""
    return f"{module} is not installed; pip install '.[{EXTRAS[kind.runtime]}]' installs it"
