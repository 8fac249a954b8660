"""Files of measured results: the rows of a table with what they were measured on, as JSON."""

import json
import shlex
import subprocess
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.commands import ROOT
from twinquant.errors import UserError
from twinquant.files import write_json_atomically
from twinquant.machine import describe_machine

SQUAD, GLUE = "squad", "glue"


def write_results(path: Path, kind: str, arguments: Mapping[str, Any], rows: list[dict]) -> None:
    """Writes rows of results with the command, date, machine and versions that they come from.

    Args:
        path: the JSON file.
        kind: SQUAD or GLUE: what was run is `python -m benchmarks.<kind>_results`.
        arguments: its flags by their names.
    """
    flags = {name: value for name, value in arguments.items() if value is not None}
    words = [word for name, value in flags.items() for word in (f"--{name}", *_words(value))]
    write_json_atomically(
        path,
        {
            "kind": kind,
            "command": f"python -m benchmarks.{kind}_results {shlex.join(words)}",
            "date": date.today().isoformat(),
            "commit": _commit(),
            "machine": {name: value for name, value in describe_machine().items() if name != "cpu_flags"},
            "rows": rows,
        },
    )


def read_results(path: Path) -> dict[str, Any]:
    """A file that `write_results` wrote. Raises UserError for any other."""
    try:
        results = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(results, dict) or not results.get("rows") or "machine" not in results:
        raise UserError(f"{path} holds no results: expected what benchmarks.squad_results and glue_results write")
    return {"kind": GLUE if "summary" in results["rows"][0] else SQUAD} | results


def _words(value: Any) -> list[str]:
    """A flag's value on a command line; paths without the folders above them, which say nothing elsewhere."""
    if isinstance(value, list):
        return [str(each) for each in value]
    return [Path(value).name if isinstance(value, str) and value.startswith("/") else str(value)]


def _commit() -> str | None:
    """The commit of this checkout, with "+" where files differ from it; None outside a checkout."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--exclude=*", "--dirty=+"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
