"""`python -m export compare`: plans the rows, has them measured, writes the report."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from export.compare import unfinished
from export.compare.accuracy import Accuracy, measure_accuracy
from export.compare.flags import parse_compare_flags
from export.compare.latency import full_batch, parse_shapes, parse_threads, shape_name
from export.compare.measure import Processes, measure_answers, measure_latencies
from export.compare.page import make_page
from export.compare.prepare import prepare_row
from export.compare.process import RowProcess
from export.compare.report import Report, choose_baseline, find_row, make_report
from export.compare.rows import Row, checkpoint_names, select_rows
from export.compare.table import markdown_report, table_lines, words
from export.data import make_task, max_seq_length
from export.flags import DATA_FLAGS, Arguments
from export.source import Source, load_source
from reports.html import drawing_problem
from tasks.base import Task
from twinquant.files import make_folder, write_files_atomically, write_json_atomically
from twinquant.machine import describe_machine
from twinquant.messages import set_up_messages

logger = logging.getLogger("twinquant")


def run_compare(argv: list[str]) -> int:
    """Writes the report and prints its table; 1 where a row's process failed, or no row could be measured."""
    arguments = parse_compare_flags(argv)
    set_up_messages(verbose=False)
    for note in arguments.notes:
        logger.info("%s", note)
    problem = drawing_problem()
    if problem:
        logger.warning("warning: there will be no report.html: %s", problem)
    output = Path(arguments["output"])
    make_folder(output)
    names = checkpoint_names(arguments["checkpoint"])
    rows = select_rows(names, arguments["rows"])
    if arguments["baseline"] is not None:
        find_row(rows, arguments["baseline"])
    sources = {
        name: load_source(path, arguments["task"], arguments["bert_config_file"])
        for name, path in zip(names, arguments["checkpoint"], strict=True)
    }
    report = _measure(arguments, rows, sources, output)
    written = _write(report, output, with_page=not problem)
    unfinished.forget(output)
    print("\n".join([*table_lines(report), *words(report)]))
    unmeasured = [row for row in rows if row.reason]
    for row in unmeasured:
        print(f"not measured{' to the end' if row.accuracy else ''}: {row.id}: {row.reason}")
    for path in written:
        print(f"wrote {path}")
    return 1 if any(row.failed for row in rows) or all(row.accuracy is None for row in rows) else 0


def _measure(arguments: Arguments, rows: list[Row], sources: dict[str, Source], output: Path) -> Report:
    """Fills in the rows and makes the report of them."""
    threads = parse_threads(arguments["threads"])
    positions = min(source.config.max_position_embeddings for source in sources.values())
    shapes, notes = parse_shapes(arguments["batches"], positions)
    for note in notes:
        logger.info("note: %s", note)
    machine = describe_machine()
    # Files that cannot be read shall be found before anything is measured.
    tasks = {name: _read_task(arguments, source) for name, source in sources.items()}
    data_settings: dict[str, object] = {flag.name: arguments[flag.name] for flag in DATA_FLAGS}
    data_settings |= {"max_examples": arguments["max_examples"], "threads_of_data": max(threads)}
    keys: dict[str, str] = {}
    with _models_folder(arguments["keep_models"]) as folder, Processes() as processes:
        for row in rows:
            source = sources[row.checkpoint]
            prepare_row(row, source, arguments, folder / row.checkpoint.strip("/").replace("/", "_"))
            if not row.reason:
                keys[row.id] = unfinished.row_key(
                    row, source, arguments["data"], arguments["vocab_file"], data_settings, machine
                )

        def measure(row: Row, process: RowProcess) -> Accuracy:
            longest = max_seq_length(arguments, sources[row.checkpoint])
            return measure_accuracy(process, tasks[row.checkpoint], arguments["predict_batch_size"], longest)

        measure_answers(
            rows, max(threads), processes, measure,
            kept=lambda row: unfinished.load(output, keys[row.id]),
            keep=lambda row, accuracy: unfinished.save(output, keys[row.id], accuracy),
        )  # fmt: skip
        vocab_size = min(source.config.vocab_size for source in sources.values())
        batches = {shape: full_batch(shape, vocab_size) for shape in shapes}
        measure_latencies(rows, threads, max(threads), batches, arguments["rounds"], processes)
    baseline, baseline_note = choose_baseline(rows, arguments["baseline"])
    if baseline_note:
        logger.warning("warning: %s", baseline_note)
        notes.append(baseline_note)
    settings = {
        "threads": threads,
        "batches": [shape_name(shape) for shape in shapes],
        "rounds": arguments["rounds"],
        "data": arguments["data"],
        **data_settings,
    }
    return make_report(rows, sources, baseline, settings, machine, notes)


def _read_task(arguments: Arguments, source: Source) -> Task:
    task = make_task(arguments, source, arguments["data"], arguments["max_examples"])
    for prediction_set in task.prediction_sets():
        prediction_set.features()
    return task


@contextlib.contextmanager
def _models_folder(kept: str | None) -> Iterator[Path]:
    """Where models are written: the folder of --keep_models, or one that is gone after the block."""
    if kept is not None:
        make_folder(kept)
        yield Path(kept)
        return
    with tempfile.TemporaryDirectory(prefix="twinquant-compare-") as folder:
        yield Path(folder)


def _write(report: Report, output: Path, with_page: bool) -> Sequence[Path]:
    page = output / "report.html"
    # Before the others are made: whatever may go wrong there, the numbers are kept.
    write_json_atomically(output / "report.json", report)
    write_files_atomically({output / "report.md": partial(_write_text, text=markdown_report(report))})
    writers = {}
    if with_page:
        writers[page] = partial(_write_text, text=make_page(report))
    else:
        page.unlink(missing_ok=True)  # an earlier run's would tell other numbers
    write_files_atomically(writers)
    return [output / "report.json", output / "report.md", *writers]


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
