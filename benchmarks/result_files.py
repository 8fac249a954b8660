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

SQUAD, GLUE, COMPARE = "squad", "glue", "compare"
TITLES = {"pytorch": "PyTorch", "tensorflow": "TensorFlow"}


def write_results(
    path: Path, kind: str, arguments: Mapping[str, Any], rows: list[dict], more: Mapping[str, Any] | None = None
) -> None:
    """Writes rows of results with the command, date, machine and versions that they come from.

    Args:
        path: the JSON file.
        kind: SQUAD, GLUE or COMPARE: what was run is `python -m benchmarks.<kind>_results`.
        arguments: its flags by their names.
        more: further entries, which replace those that are found here.
    """
    flags = {name: value for name, value in arguments.items() if value is not None and value is not False}
    words = [word for name, value in flags.items() for word in (f"--{name}", *_words(value))]
    results = {
        "kind": kind,
        "command": f"python -m benchmarks.{kind}_results {shlex.join(words)}",
        "date": date.today().isoformat(),
        "commit": _commit(),
        "machine": describe_machine(),
        **(more or {}),
        "rows": rows,
    }
    results["machine"] = {name: value for name, value in results["machine"].items() if name != "cpu_flags"}
    write_json_atomically(path, results)


def read_results(path: Path) -> dict[str, Any]:
    """A file that `write_results` wrote. Raises UserError for any other."""
    try:
        results = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(results, dict) or not results.get("rows") or "machine" not in results:
        raise UserError(f"{path} holds no results: expected what benchmarks.*_results write")
    return {"kind": GLUE if "summary" in results["rows"][0] else SQUAD} | results


def provenance(files: list[dict]) -> str:
    """On what, when and by which commands the results were measured."""
    machines = {describe(results["machine"]) for results in files}
    dates = sorted({results["date"] for results in files})
    commands = "; ".join(f"`{results['command']}`" for results in files)
    days = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    sources = "".join(f" Of this, {results['source']}." for results in files if "source" in results)
    return f"Measured {days} on {'; '.join(sorted(machines))}: {commands}.{sources}"


def describe(machine: dict) -> str:
    """Processor, cores and the versions that matter, in one line."""
    versions = machine.get("versions", {})
    frameworks = [
        f"{TITLES[n]} {versions[key]}" for n, key in (("pytorch", "torch"), ("tensorflow",) * 2) if key in versions
    ]
    vnni = "with VNNI" if machine["vnni"] else "without VNNI"
    cores = "1 core" if machine["cores"] == 1 else f"{machine['cores']} cores"
    return ", ".join([f"{cores} of {machine['cpu']} {vnni}", *frameworks])


def _words(value: Any) -> list[str]:
    """A flag's value on a command line; paths without the folders above them, which say nothing elsewhere."""
    if value is True:
        return []
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
