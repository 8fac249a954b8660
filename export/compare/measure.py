"""The two passes over the rows: the data through each of them, then the rounds in which they take turns."""

import logging
from collections.abc import Callable, Sequence

from backends.base import Batch
from export.compare.accuracy import Accuracy, agreement
from export.compare.latency import Latency, measure_rounds, shape_name
from export.compare.process import RowError, RowProcess
from export.compare.rows import Row
from twinquant.errors import UserError
from twinquant.machine import memory_bytes

logger = logging.getLogger("twinquant")

Measure = Callable[[Row, RowProcess], Accuracy]
Kept = Callable[[Row], Accuracy | None]
Keep = Callable[[Row, Accuracy], None]


class Processes:
    """The rows' processes that are alive, by the row's id; they end with the block."""

    def __init__(self) -> None:
        self.by_row: dict[str, RowProcess] = {}

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *exception: object) -> None:
        for name in list(self.by_row):
            self.close(name)

    def start(self, row: Row, threads: int) -> RowProcess:
        """Starts the row's process; it need not be ready."""
        assert row.spec is not None
        self.by_row[row.id] = RowProcess(row.spec, threads)
        return self.by_row[row.id]

    def close(self, name: str) -> None:
        """Ends the row's process."""
        self.by_row.pop(name).close()


def measure_answers(
    rows: Sequence[Row], threads: int, processes: Processes, measure: Measure, kept: Kept, keep: Keep
) -> None:
    """Fills in every row's accuracy, and its agreement with the first fp32 row of its checkpoint.

    Args:
        measure: takes the row's data through its process. kept, keep: an earlier, interrupted run's result of the row,
            and where this one's goes.
    """
    for number, row in enumerate(rows, 1):
        if row.reason:
            logger.info("row %d of %d, %s: not measured: %s", number, len(rows), row.id, row.reason)
            continue
        row.accuracy = kept(row)
        if row.accuracy is not None:
            logger.info("row %d of %d, %s: taken from the run that was interrupted", number, len(rows), row.id)
            continue
        logger.info("row %d of %d, %s", number, len(rows), row.id)
        process = processes.start(row, threads)
        try:
            process.wait_until_ready()
            row.accuracy = measure(row, process)
        except RowError as error:
            _fail(row, error, processes)
            continue
        except UserError as error:  # of the task, for answers that cannot be: NaN
            _fail(row, RowError(str(error), defect=True), processes)
            continue
        keep(row, row.accuracy)
    references = reference_rows(rows)
    for row in rows:
        reference = references.get(row.checkpoint)
        if row.accuracy is not None and reference is not None and reference.accuracy is not None:
            row.agreement = agreement(reference.accuracy, row.accuracy)
    total = memory_bytes()
    needed = sum(row.accuracy.peak_bytes for row in rows if row.accuracy is not None)
    if total is not None and needed > 0.9 * total:
        logger.warning(
            "warning: the rows together need %.1f GB, of %.1f GB: they may be slowed down by swapping, or killed; "
            "measure fewer at a time with --rows", needed / 1e9, total / 1e9,
        )  # fmt: skip


def reference_rows(rows: Sequence[Row]) -> dict[str, Row]:
    """By checkpoint the first fp32 row that was measured."""
    found: dict[str, Row] = {}
    for row in rows:
        if row.kind.precision == "fp32" and row.accuracy is not None:
            found.setdefault(row.checkpoint, row)
    return found


def measure_latencies(
    rows: Sequence[Row],
    threads: Sequence[int],
    alive: int,
    batches: dict[tuple[int, int], Batch],
    rounds: int,
    processes: Processes,
) -> None:
    """Fills in every row's times.

    Args:
        alive: the number of threads that the processes which are alive have; it is measured first.
    """
    for count in sorted(threads, key=lambda count: (count != alive, count)):
        if count != alive:
            for name in list(processes.by_row):
                processes.close(name)
        running = [row for row in rows if not row.reason]
        # All at once: loading is not timed.
        started = [(row, processes.start(row, count)) for row in running if row.id not in processes.by_row]
        for row, process in started:
            try:
                process.wait_until_ready()
            except RowError as error:
                _fail(row, error, processes)
        for shape, batch in batches.items():
            running = [row for row in running if not row.reason]
            text = "threads %d, batch %s: %d rounds of %d rows"
            logger.info(text, count, shape_name(shape), rounds, len(running))
            errors: dict[str, RowError] = {}
            alive_rows = {row.id: processes.by_row[row.id] for row in running}
            found: dict[str, Latency] = measure_rounds(alive_rows, batch, rounds, errors)
            for row in running:
                if row.id in errors:
                    _fail(row, errors[row.id], processes, f"{shape_name(shape)} with {count} threads: ")
                else:
                    row.latency.setdefault(count, {})[shape_name(shape)] = found[row.id]


def _fail(row: Row, error: RowError, processes: Processes, where: str = "") -> None:
    row.reason, row.failed = f"{where}{error}", error.defect
    logger.warning("warning: %s: %s", row.id, row.reason)
    processes.close(row.id)
