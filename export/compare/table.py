"""The report for people: one table, and what its columns mean."""

from collections.abc import Callable
from typing import Any, NamedTuple

from export.compare.report import Report
from twinquant.machine import machine_lines

NOTHING = "–"
Values = dict[str, Any]  # a row of the report

MEANINGS = (
    ("scores", "in percent, over the examples below; Δ is the main one's difference to the checkpoint's fp32 row."),
    ("agree, differ", "answers (a question's text, an example's class) that are the same as the fp32 row's, and the "
     "number of those that are not."),
    ("flips", "answers that only the fp32 row, and that only this row gets right (of questions: exact match), and the "
     "p-value of McNemar's exact test on the two: small where the difference is more than chance."),
    ("file MB", "what one would ship: the exported model; of a backend the checkpoint's weights, with its ranges in "
     "an int8 row. 1 MB is 10^6 bytes."),
    ("RSS MB", "the largest resident memory of a process that does nothing else: Python, framework, reading the model, "
     "predicting all the data in batches with the largest number of threads."),
    ("int8 %", "multiplications (of matrix products, one row of 128 tokens) that int8 kernels do; 0 where int8 is "
     "simulated."),
    ("ex/s", "examples by second of that prediction, without reading and tokenizing; not interleaved, first calls "
     "included."),
    ("latency", "p50 / p90 in ms of a batch of rows x positions without padding, with t threads; in parentheses how "
     "many times as fast as the baseline, median by median. Every row has a process of its own; in every round all of "
     "them run the batch once, one at a time, in random order, right after a run that is not counted."),
)  # fmt: skip


class Column(NamedTuple):
    """A column of the table: its group's name, its own, and the text of a row."""

    group: str
    name: str
    text: Callable[[Values], str]


def columns(report: Report) -> list[Column]:
    """The columns behind the model's name."""
    metrics = [Column("scores", metric, _score_text(metric)) for metric in report["metrics"]]
    if report["main_metric"] is not None:
        metrics.append(Column("scores", f"Δ {report['main_metric']}", lambda row: difference(report, row)))
    return [
        *metrics,
        Column("agreement with fp32", "agree %", lambda row: _agreement(row, lambda found: f"{found['percent']:.2f}")),
        Column("agreement with fp32", "differ", lambda row: _agreement(row, lambda found: str(found["different"]))),
        Column("agreement with fp32", "flips", lambda row: _agreement(row, _flips)),
        Column("size", "file MB", _file_size),
        Column("size", "RSS MB", lambda row: _number(row["peak_rss_bytes"], ".0f", 1e6)),
        Column("speed", "int8 %", lambda row: _number(row["int8_share"], ".1f", 0.01)),
        Column("speed", "ex/s", lambda row: _number(row["examples_per_second"], ".1f")),
        *(
            Column(
                f"{threads} thread{'s' * (threads > 1)}: times as fast, p50 / p90 ms",
                shape,
                _latency_text(threads, shape),
            )
            for threads in report["settings"]["threads"]
            for shape in report["settings"]["batches"]
        ),
    ]


def row_name(report: Report, row: Values) -> str:
    """The row's name, with its checkpoint's where there are several."""
    return row["id"] if len(report["checkpoints"]) > 1 else row["name"]


def difference(report: Report, row: Values) -> str:
    """The main score's difference to the fp32 row's, with its sign."""
    reference = report["references"].get(row["checkpoint"])
    scores: dict[str, float] = next((other["scores"] for other in report["rows"] if other["id"] == reference), {})
    metric = report["main_metric"]
    if row["is_reference"] or metric not in scores or metric not in row["scores"]:
        return NOTHING
    return f"{row['scores'][metric] - scores[metric]:+.2f}"


def table_lines(report: Report) -> list[str]:
    """The table in Markdown, its columns aligned for reading as text."""
    shown = columns(report)
    heads = [f"{c.name}, t={c.group.split()[0]}" if "thread" in c.group else c.name for c in shown]
    lines = [["model", *heads]]
    for row in report["rows"]:
        measured = "scores" in row
        lines.append([row_name(report, row), *(column.text(row) if measured else NOTHING for column in shown)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    return [f"| {' | '.join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])} |" for line in lines]


def markdown_report(report: Report) -> str:
    """report.md."""
    names = ", ".join(report["checkpoints"])
    lines = [f"# {names}, compared", "", *table_lines(report), "", *(f"- {line}" for line in words(report)), ""]
    lines += [f"- {line}" for line in [*unmeasured_lines(report), *note_lines(report)]]
    lines += ["", "## What was measured", "", *(f"- {line}" for line in setting_lines(report))]
    lines += ["", "## What the columns mean", "", *(f"- **{name}**: {meaning}" for name, meaning in MEANINGS)]
    lines += ["", "## The machine", "", *(f"- {line}" for line in machine_lines(report["machine"])), ""]
    return "\n".join(lines)


def words(report: Report) -> list[str]:
    """What was found of every row that runs in int8, a sentence each."""
    sentences = []
    by_id = {row["id"]: row for row in report["rows"]}
    for row in report["rows"]:
        reference = by_id.get(report["references"].get(row["checkpoint"], ""))
        if not row["int8_share"] or "scores" not in row or reference is None:
            continue
        parts = []
        metric, found = report["main_metric"], row["agreement"]
        if metric is not None:
            parts.append(f"{metric} {row['scores'][metric]:.2f} ({difference(report, row)} to fp32)")
        if found is not None:
            parts.append(f"{found['different']} of {found['answers']} answers differ from fp32's")
        parts.append(f"{_file_size(row)} MB (fp32: {_file_size(reference)})")
        ratios = [value["times_as_fast"] for by_shape in row["latency"].values() for value in by_shape.values()]
        ratios = [value for value in ratios if value is not None]
        if ratios:
            low, high = f"{min(ratios):.2f}", f"{max(ratios):.2f}"
            times = low if low == high else f"{low} to {high}"
            parts.append(f"{times} times as fast as {row_name(report, by_id[report['baseline']])}")
        sentences.append(f"{row_name(report, row)}: {', '.join(parts)}")
    return sentences


def note_lines(report: Report) -> list[str]:
    """What the reader should know of single rows, and of all."""
    noted = [row for row in report["rows"] if row["notes"] and "scores" in row]
    return [f"{row_name(report, row)}: {'; '.join(row['notes'])}" for row in noted] + report["notes"]


def setting_lines(report: Report) -> list[str]:
    """Checkpoints, data and baseline in words."""
    lines = []
    for name, facts in report["checkpoints"].items():
        calibration = {key: value for key, value in facts["calibration"].items() if value is not None}
        how = ", ".join(f"{key} {value}" for key, value in calibration.items())
        ranges = f"ranges ({how})" if how else "ranges" if facts["has_ranges"] else "no ranges, so no int8 rows"
        head = facts["head"].replace("_", " ")
        size = f"{facts['layers']} layers of {facts['hidden_size']}, {facts['positions']} positions"
        lines.append(f"{name}: {facts['path']}; {head}, {size}, {ranges}")
    settings = report["settings"]
    lines.append(
        f"data: {settings['data']}, {report['examples']} examples in {report['model_rows']} rows, batches of "
        f"{settings['predict_batch_size']}"
    )
    lines.append(
        f"latency: {settings['rounds']} rounds; baseline {report['baseline'] or 'none'}; load of the machine before "
        f"(1, 5, 15 minutes): {' '.join(map(str, report['machine']['load_before'] or ['unknown']))}"
    )
    lines.append(f"fp32 row that the others are to agree with: {', '.join(report['references'].values()) or 'none'}")
    return lines


def unmeasured(report: Report) -> list[Values]:
    """The rows that have a reason for what is missing."""
    return [row for row in report["rows"] if row["reason"]]


def unmeasured_lines(report: Report) -> list[str]:
    """What is missing of these rows, and why."""
    return [
        f"not measured{' to the end' if 'scores' in row else ''}: {row_name(report, row)}: {row['reason']}"
        for row in unmeasured(report)
    ]


def _file_size(row: dict[str, Any]) -> str:
    return _number(row["file_bytes"], ".1f", 1e6)


def _number(value: float | None, form: str, unit: float = 1.0) -> str:
    return NOTHING if value is None else format(value / unit, form)


def _agreement(row: Values, text: Callable[[Values], str]) -> str:
    return NOTHING if row["is_reference"] or row["agreement"] is None else text(row["agreement"])


def _flips(found: Values) -> str:
    if found["mcnemar_p"] is None:
        return NOTHING
    return f"{found['only_fp32_right']} : {found['only_this_right']} (p {found['mcnemar_p']:.2g})"


def _score_text(metric: str) -> Callable[[Values], str]:
    return lambda row: _number(row["scores"].get(metric), ".2f")


def _latency_text(threads: int, shape: str) -> Callable[[Values], str]:
    def text(row: Values) -> str:
        found = row["latency"].get(str(threads), {}).get(shape)
        if found is None:
            return NOTHING
        fast = "" if found["times_as_fast"] is None else f" ({found['times_as_fast']:.2f}x)"
        return f"{found['p50_ms']:.1f} / {found['p90_ms']:.1f}{fast}"

    return text
