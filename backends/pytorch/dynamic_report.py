"""Size and speed of a model before and after: what the guides print, counted in full."""

import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch

from checkpoints.safetensors_file import SafetensorsReader

Predict = Callable[[Mapping[str, np.ndarray]], object]


class SizeReport(NamedTuple):
    """Sizes of two files in bytes, and what the bytes of the second one's tensors are: int8, int32, float32."""

    float_bytes: int
    int8_bytes: int
    bytes_by_dtype: dict[str, int]

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {megabytes(size):.1f} MB" for name, size in self.bytes_by_dtype.items())
        return (
            f"float32 file {megabytes(self.float_bytes):.1f} MB, int8 file {megabytes(self.int8_bytes):.1f} MB "
            f"({parts}): {self.float_bytes / self.int8_bytes:.2f} times smaller"
        )


def megabytes(size: int) -> float:
    """Bytes in units of 10**6."""
    return size / 1e6


def size_report(float_file: str | os.PathLike[str], int8_file: str | os.PathLike[str]) -> SizeReport:
    """Sizes of the files on the disk, so that nothing is left out, as packed weights are by counting parameters.

    Args:
        float_file: the float32 weights, of any form.
        int8_file: a safetensors file.

    Raises:
        UserError: int8_file is not a safetensors file.
    """
    reader = SafetensorsReader(int8_file)
    sizes: Counter[str] = Counter()
    for name in reader.names:
        array = reader.read(name)
        sizes[str(array.dtype)] += array.nbytes
    return SizeReport(os.path.getsize(float_file), os.path.getsize(int8_file), dict(sorted(sizes.items())))


def speed(
    models: Mapping[str, Predict],
    batch: Mapping[str, np.ndarray],
    threads: int,
    rounds: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of one prediction by each model with that many threads of PyTorch, which are then set back.

    The models take turns, so that a busy machine slows all of them; one warm-up round is not counted. `clock` gives
    seconds; with one thread time.thread_time leaves out what the processor did for others.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    times: dict[str, list[float]] = {name: [] for name in models}
    try:
        for number in range(rounds + 1):
            for name, predict in models.items():
                started = clock()
                predict(batch)
                if number:
                    times[name].append(clock() - started)
    finally:
        torch.set_num_threads(before)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


class TableRow(NamedTuple):
    """One model in the guides' table."""

    name: str
    size: int  # bytes of the file
    metric: float | None  # None: nothing that was predicted has labels
    seconds: Mapping[int, float]  # of one prediction, by number of threads


def table(metric_name: str, rows: list[TableRow]) -> str:
    """The guides' table in Markdown: model, size, metric, seconds at 1 thread, at N threads."""
    threads = list(rows[0].seconds)
    head = ["model", "size MB", metric_name, *(f"{n} thread{'s' if n > 1 else ''} s" for n in threads)]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        seconds = [f"{row.seconds[n]:.4f}" for n in threads]
        lines.append(
            [row.name, f"{megabytes(row.size):.1f}", "" if row.metric is None else f"{row.metric:.4f}", *seconds]
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
