"""Files of measured results: the rows of a table with what they were measured on, as JSON."""

import json
import shlex
import subprocess
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.commands import ROOT
from export.compare.machine import describe_machine
from twinquant.errors import UserError
from twinquant.files import write_json_atomically


def write_results(path: Path, module: str, arguments: Mapping[str, Any], rows: list[dict]) -> None:
    """Writes rows of results with the command, date, machine and versions that they come from.

    Args:
        path: the JSON file.
        module: what was run by `python -m`.
        arguments: its flags by their names.
    """
    flags = {name: value for name, value in arguments.items() if value is not None}
    words = [word for name, value in flags.items() for word in (f"--{name}", *_words(value))]
    write_json_atomically(
        path,
        {
            "command": f"python -m {module} {shlex.join(words)}",
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
    if not isinstance(results, dict) or not isinstance(results.get("rows"), list):
        raise UserError(f"{path} holds no results: expected an object with rows, as benchmarks.squad_results writes")
    return results


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
