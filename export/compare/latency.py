"""How long a prediction takes: rows take turns, so that what slows the machine down slows all of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from backends.base import Batch
from export.compare.process import RowError
from twinquant.errors import UserError
from twinquant.machine import available_cores


@dataclass
class Latency:
    """One row's times of one shape with one number of threads: seconds by the clock, and of processor time."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)

    def percentile(self, percent: float) -> float:
        """Milliseconds that so many percent of the runs took at most; between two runs interpolated linearly."""
        return 1e3 * float(np.percentile(self.seconds, percent))

    @property
    def busy_cores(self) -> float:
        """Processor time by clock time, of the median runs: how many cores were at work."""
        return float(np.median(self.cpu_seconds) / np.median(self.seconds))


class Timed(Protocol):
    """What takes turns; see `RowProcess`."""

    def time(self, batch: Batch) -> tuple[float, float]:
        """Seconds by the clock, and of processor time."""


def ratio(baseline: Latency, row: Latency) -> float:
    """How many times as fast as the baseline: median by median."""
    return baseline.percentile(50) / row.percentile(50)


def parse_shapes(words: Sequence[str], positions: int) -> tuple[list[tuple[int, int]], list[str]]:
    """Shapes [B, S] from words such as "8x128", at most `positions` long; and what to say of those that were cut.

    Raises UserError for a word of another form.
    """
    shapes: list[tuple[int, int]] = []
    notes = []
    for word in words:
        match = re.fullmatch(r"(\d+)x(\d+)", word)
        if match is None or int(match[1]) < 1 or int(match[2]) < 2:
            raise UserError(f"--batches: found {word!r}, expected rows x positions, such as 8x128")
        shape = (int(match[1]), min(int(match[2]), positions))
        if shape[1] < int(match[2]):
            notes.append(f"{word} is timed as {shape_name(shape)}: the model has {positions} positions")
        if shape not in shapes:
            shapes.append(shape)
    return shapes, notes


def parse_threads(words: Sequence[str]) -> list[int]:
    """Numbers of threads, rising; without words 1 and as many as this process has cores. UserError for others."""
    if not words:
        return sorted({1, available_cores()})
    for word in words:
        if not re.fullmatch("[0-9]+", word) or int(word) < 1:
            raise UserError(f"--threads: found {word!r}, expected whole numbers of at least 1")
    return sorted({int(word) for word in words})


def shape_name(shape: tuple[int, int]) -> str:
    """ "8x128"."""
    return f"{shape[0]}x{shape[1]}"


def full_batch(shape: tuple[int, int], vocab_size: int) -> Batch:
    """Random tokens without padding, int32 [B, S]."""
    ids = np.random.default_rng(0).integers(0, vocab_size, shape).astype(np.int32)
    return {"input_ids": ids, "input_mask": np.ones(shape, np.int32), "segment_ids": np.zeros(shape, np.int32)}


def measure_rounds(
    processes: Mapping[str, Timed], batch: Batch, rounds: int, errors: dict[str, RowError]
) -> dict[str, Latency]:
    """Times of `rounds` rounds, after one that warms up and is not counted, by the name of the row.

    In every round each row runs the batch once, one at a time, in an order that is drawn anew. A row that fails is left
    out of the result and of further rounds; `errors` says why, and may name rows that failed before.
    """
    found = {name: Latency() for name in processes if name not in errors}
    rng = np.random.default_rng(0)
    for number in range(rounds + 1):
        for name in rng.permutation(sorted(found)).tolist():
            try:
                seconds, cpu_seconds = processes[name].time(batch)
            except RowError as error:
                errors[name] = error
                del found[name]
                continue
            if number:
                found[name].seconds.append(seconds)
                found[name].cpu_seconds.append(cpu_seconds)
    return found
