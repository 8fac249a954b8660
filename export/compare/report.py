"""The report as values: what report.json holds, and what the table and the page are made from."""

from collections.abc import Mapping, Sequence
from typing import Any

from export.compare.accuracy import Agreement
from export.compare.latency import Latency, ratio
from export.compare.measure import reference_rows
from export.compare.rows import Row
from export.source import Source
from twinquant.errors import UserError

Report = dict[str, Any]
_BASELINE_RUNTIMES = ("onnxruntime", "pytorch", "tensorflow", "openvino")
_SPARE_CORES = 0.3  # by which processor time may exceed the threads before the reader is told


def find_row(rows: Sequence[Row], name: str) -> Row:
    """The first row of that short or full name; UserError where there is none."""
    for row in rows:
        if name in (row.kind.name, row.id):
            return row
    raise UserError(
        f"--baseline={name} is no row that is measured; expected one of {', '.join(row.id for row in rows)}"
    )


def choose_baseline(rows: Sequence[Row], name: str | None) -> tuple[Row | None, str]:
    """The row that times are compared with, and what to say where it is not the expected one.

    By default fp32 under onnxruntime, of the first checkpoint: the fastest fp32 that the same user could run instead of
    its int8. Where that was not measured: the fp32 of another runtime, else the first row that was.
    """
    timed = [row for row in rows if row.latency]
    if not timed:
        return None, "no row was timed, so there are no ratios"
    if name is not None:
        asked = find_row(rows, name)
        if asked.latency:
            return asked, ""
    for runtime in _BASELINE_RUNTIMES:
        for row in timed:
            if (row.kind.runtime, row.kind.precision) == (runtime, "fp32"):
                expected = name is None and (runtime == "onnxruntime" or not _planned(rows, "onnxruntime-fp32"))
                return row, "" if expected else f"{name or 'onnxruntime-fp32'} was not timed: ratios are to {row.id}"
    return timed[0], f"no fp32 row was timed: ratios are to {timed[0].id}"


def make_report(
    rows: Sequence[Row],
    sources: Mapping[str, Source],
    baseline: Row | None,
    settings: Mapping[str, Any],
    machine: Mapping[str, Any],
    notes: Sequence[str],
) -> Report:
    """All that was found, as values for JSON."""
    references = reference_rows(rows)
    measured = [row.accuracy for row in rows if row.accuracy is not None]
    notes = list(notes)
    for name in sources:
        if name not in references and any(row.checkpoint == name and row.accuracy for row in rows):
            notes.append(f"{name}: no fp32 row was measured, so there is nothing to agree with")
    return {
        "checkpoints": {name: _describe_source(source) for name, source in sources.items()},
        "settings": dict(settings),
        "machine": dict(machine),
        "examples": len(measured[0].answers) if measured else 0,
        "model_rows": measured[0].rows if measured else 0,
        "metrics": list(dict.fromkeys(score for accuracy in measured for score in accuracy.scores)),
        "main_metric": next((accuracy.main_metric for accuracy in measured), None),
        "baseline": baseline.id if baseline is not None else None,
        "references": {name: row.id for name, row in references.items()},
        "notes": notes,
        "rows": [_describe_row(row, baseline, references.get(row.checkpoint)) for row in rows],
    }


def _describe_source(source: Source) -> dict[str, Any]:
    config = source.config
    return {
        "path": source.name,
        "head": source.head,
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "positions": config.max_position_embeddings,
        "has_ranges": bool(source.checkpoint.ranges),
        "calibration": {
            key: (source.calibration or {}).get(key) for key in ("quant_mode", "calib_method", "percentile")
        },
    }


def _describe_row(row: Row, baseline: Row | None, reference: Row | None) -> dict[str, Any]:
    values: dict[str, Any] = {
        "id": row.id,
        "checkpoint": row.checkpoint,
        "name": row.kind.name,
        "runtime": row.kind.runtime,
        "precision": row.kind.precision,
        "reason": row.reason,
        "failed": row.failed,
        "notes": list(row.notes),
        "file_bytes": row.file_bytes,
        "int8_share": row.int8_share,
        "is_reference": row is reference,
        "agreement": None if row.agreement is None else _describe_agreement(row.agreement),
    }
    if row.accuracy is not None:
        values |= {
            "scores": row.accuracy.scores,
            "peak_rss_bytes": row.accuracy.peak_bytes,
            "examples_per_second": row.accuracy.examples_per_second,
        }
    values["latency"] = {}
    for threads, by_shape in row.latency.items():
        values["latency"][str(threads)] = {
            shape: _describe_latency(latency, baseline.latency.get(threads, {}).get(shape) if baseline else None)
            for shape, latency in by_shape.items()
        }
        busy = max(latency.busy_cores for latency in by_shape.values())
        if busy > threads + _SPARE_CORES:
            values["notes"].append(f"keeps {busy:.1f} cores busy with {threads} threads")
    return values


def _describe_agreement(found: Agreement) -> dict[str, Any]:
    return {
        "answers": found.answers,
        "equal": found.equal,
        "different": found.answers - found.equal,
        "percent": found.percent,
        "only_fp32_right": found.lost,
        "only_this_right": found.won,
        "mcnemar_p": found.p_value,
    }


def _describe_latency(latency: Latency, baseline: Latency | None) -> dict[str, Any]:
    return {
        "p50_ms": latency.percentile(50),
        "p90_ms": latency.percentile(90),
        "times_as_fast": None if baseline is None else ratio(baseline, latency),
        "busy_cores": latency.busy_cores,
        "seconds": latency.seconds,
    }


def _planned(rows: Sequence[Row], name: str) -> bool:
    return any(row.kind.name == name for row in rows)
