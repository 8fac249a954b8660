"""`twinquant runs DIR...`: every run that left a record in these folders, as a table."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twinquant.errors import UserError
from twinquant.flags import Flag, parse_flags
from twinquant.run_record import FILE, read_records

PROGRAM = "twinquant runs"
HEAD = """
twinquant runs FOLDER [FOLDER ...]: the runs that left a record (run.json) in these folders or below them, the oldest
first: when, which script, phases, backend, mode, result, seconds, state. A run that was killed is told by its process
being gone. From a clone: python -m twinquant runs FOLDER.
"""
# fmt: off
FLAGS = (
    Flag("errors", bool, False, "runtime", "Show what ended the runs that did not finish, a line each."),
)
# fmt: on
COLUMNS = ("when (UTC)", "script", "phases", "backend", "mode", "result", "seconds", "state", "folder")
_RIGHT = frozenset({"seconds"})
_SHOWN_SCORES = 3


def run_runs(argv: Sequence[str]) -> int:
    """Prints the table; 1 where a record could not be read, which is named, 0 otherwise."""
    folders = [word for word in argv if not word.startswith("-")]
    parsed = parse_flags(FLAGS, [word for word in argv if word.startswith("-")], PROGRAM, HEAD)
    if not folders:
        raise UserError("name at least one folder, as in: twinquant runs out")
    runs: list[tuple[Path, Mapping[str, Any]]] = []
    problems = []
    for path in find_records(folders):
        try:
            runs += [(path.parent, run) for run in read_records(path)]
        except UserError as error:
            problems.append(str(error))
    runs.sort(key=lambda found: str(found[1].get("started")))
    if runs:
        print("\n".join(table([row(folder, run) for folder, run in runs])))
    if parsed.values["errors"]:
        for folder, run in runs:
            if run.get("error"):
                print(f"{folder}, {run.get('started')}: {run['error']}")
    if not runs and not problems:
        print(f"no run left a record in {', '.join(folders)}")
    for problem in problems:
        print(f"not shown: {problem}")
    return 1 if problems else 0


def find_records(folders: Iterable[str]) -> list[Path]:
    """Every run.json in these folders or below; UserError for what is no folder."""
    found: dict[Path, None] = {}
    for name in folders:
        if not Path(name).is_dir():
            raise UserError(f"{name} is no folder; expected one that runs wrote into, or one above it")
        for folder, below, files in os.walk(name):
            below.sort()
            if FILE in files:
                found[Path(folder, FILE)] = None
    return list(found)


def row(folder: Path, run: Mapping[str, Any]) -> dict[str, str]:
    """One run's cells by column; "-" for what its record does not tell."""
    found = run.get("phases")
    phases = list(found) if isinstance(found, dict) else []
    told = [phase for phase in phases if phase != "load"] or phases
    processes = run.get("processes")
    backend = str(run.get("backend") or "-")
    if isinstance(processes, int) and processes > 1:
        backend += f" x{processes}"
    seconds = run.get("seconds")
    part = str(run.get("part") or "")
    return {
        "when (UTC)": str(run.get("started") or "-")[:16].replace("T", " "),
        "script": str(run.get("program") or "-").removeprefix("python -m "),
        "phases": " ".join(told) or "-",
        "backend": backend,
        "mode": str(run.get("mode") or "-"),
        "result": describe_results(run.get("results")) + (f" ({part})" if part else ""),
        "seconds": f"{seconds:.1f}" if isinstance(seconds, float | int) else "-",
        "state": str(run.get("state") or "-"),
        "folder": str(folder),
    }


def describe_results(results: Any) -> str:
    """The first few scores: "exact_match 51.26, f1 65.61"; of several runs with their deviation."""
    if not isinstance(results, Mapping):
        return "-"
    told = []
    for name, value in results.items():
        if isinstance(value, Mapping):
            mean, deviation = value.get("mean"), value.get("standard_deviation", 0.0)
            if isinstance(mean, float | int) and isinstance(deviation, float | int):
                told.append(f"{name} {mean:.4g} +- {deviation:.2g}")
        elif isinstance(value, float):
            told.append(f"{name} {value:.4g}")
    return ", ".join(told[:_SHOWN_SCORES]) or "-"


def table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Lines of equal columns, two spaces between them."""
    widths = {name: max(len(name), *(len(one[name]) for one in rows)) for name in COLUMNS}
    lines = []
    for cells in ({name: name for name in COLUMNS}, *rows):
        padded = [cells[n].rjust(widths[n]) if n in _RIGHT else cells[n].ljust(widths[n]) for n in COLUMNS]
        lines.append("  ".join(padded).rstrip())
    return lines
