"""run.json: what ran in a folder, with what, how long, and how it ended; one entry per run, none is ever lost.

The entry is there from the start and follows the run, so that a run that was killed has left its record too.
"""

import contextlib
import datetime
import fcntl
import logging
import os
import resource
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from twinquant.command_line import HIDDEN, shown_command, without_secrets
from twinquant.errors import UserError
from twinquant.files import write_json_atomically
from twinquant.git_revision import git_revision
from twinquant.json_text import parse_json
from twinquant.machine import describe_machine
from twinquant.process_identity import is_gone, this_process

logger = logging.getLogger("twinquant")

FILE = "run.json"
RUNNING, FINISHED, INTERRUPTED, FAILED, KILLED = "running", "finished", "interrupted", "failed", "killed"
# The only variables of the environment that a record holds.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


class RunRecord:
    """The record of one run, written into its folder as far as the run has come."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        program: str,
        argv: Sequence[str],
        settings: Mapping[str, Any],
        facts: Mapping[str, Any] | None = None,
        writes: bool = True,
    ) -> None:
        """
        Args:
            folder: where run.json lies. Nothing is written as long as it does not exist.
            argv: the flags as typed, without the program.
            settings: the flags as resolved, values of JSON.
            facts: what else is known at the start, such as backend and number of processes.
            writes: False for the other processes of a run of several, and where no record is wanted.
        """
        self.folder, self.program, self.argv, self.writes = Path(folder), program, list(argv), writes
        self._clock = self._phase_clock = time.monotonic()
        machine = describe_machine()
        self.values: dict[str, Any] = {
            "id": uuid.uuid4().hex,
            "state": RUNNING,
            "error": None,
            "exit_code": None,
            "started": _now(),
            "ended": None,
            "seconds": 0.0,
            "phase": None,
            "phases": {},
            "results": {},
            "program": program,
            "argv": without_secrets(argv),
            "command": shown_command(program, argv),
            "directory": os.getcwd(),
            **(facts or {}),
            "settings": _hide(dict(settings), _secrets(argv)),
            "versions": {"python": machine["python"], **machine["versions"]},
            "git": git_revision(),
            "machine": {
                name: machine[name]
                for name in ("cpu", "architecture", "cores", "decisive_cpu_flags", "memory_bytes", "system")
            },
            "threads": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
            "process": this_process(),
        }

    @property
    def is_closed(self) -> bool:
        return self.values["state"] != RUNNING

    def enter(self, phase: str) -> None:
        """The run goes on with another phase; the time since the last call belongs to the phase before."""
        self._end_phase()
        self.values["phase"] = phase
        self.save()

    def note(self, **facts: Any) -> None:
        """Facts that a run learns on its way; they are saved with the next phase, or at the end."""
        self.values |= facts

    def close(self, state: str, error: str | None = None, exit_code: int = 0) -> None:
        """The run is over. The first call counts: what ends a run is known first where it happens."""
        if self.is_closed:
            return
        self._end_phase()
        error = None if error is None else _hide(" ".join(error.split()), _secrets(self.argv))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        self.values |= {"state": state, "error": error, "exit_code": exit_code, "ended": _now(), "phase": None}
        self.values |= {"seconds": round(time.monotonic() - self._clock, 3), "peak_memory_bytes": peak}
        self.save()

    def save(self) -> None:
        """Writes the record beside those of earlier runs. What cannot be written is told, and stops nothing."""
        if not self.writes or not self.folder.is_dir():
            return
        path = self.folder / FILE
        try:
            with _locked(self.folder):
                runs = [run for run in self._earlier(path) if run.get("id") != self.values["id"]]
                write_json_atomically(path, {"runs": [*runs, self.values]})
        except UserError as error:
            logger.warning("warning: the record of this run is not kept: %s", error)

    def _earlier(self, path: Path) -> list[dict[str, Any]]:
        try:
            return read_records(path) if path.exists() else []
        except UserError as error:
            aside = path.with_name(f"run.damaged-{uuid.uuid4().hex[:6]}.json")
            os.replace(path, aside)
            logger.warning("warning: %s; it is kept as %s, and a new one is begun", error, aside.name)
            return []

    def _end_phase(self) -> None:
        now, phase = time.monotonic(), self.values["phase"]
        if phase is not None:
            phases = self.values["phases"]
            phases[phase] = round(phases.get(phase, 0.0) + now - self._phase_clock, 3)
            self._phase_clock = now  # what went before the first phase belongs to it
        self.values["seconds"] = round(now - self._clock, 3)


def read_records(path: Path) -> list[dict[str, Any]]:
    """The runs that a run.json tells of, the oldest first; one whose process is gone without a word is "killed".

    Raises UserError where the file cannot be read or holds something else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    value = parse_json(content, path)
    runs = value.get("runs") if isinstance(value, dict) else None
    if not isinstance(runs, list) or not all(isinstance(run, dict) and isinstance(run.get("id"), str) for run in runs):
        raise UserError(f"{path} is no record of runs: expected an object with a list named runs")
    for run in runs:
        process = run.get("process")
        if run.get("state") == RUNNING and isinstance(process, dict) and is_gone(process):
            run |= {"state": KILLED, "error": f"the process ended without a word in phase {run.get('phase')}"}
    return runs


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps other runs that write into the same folder from losing this run's entry.

    A prediction may run beside a training. The folder itself is locked, so that no lock file stays behind; where its
    file system has no locks, nothing more is done: the file is whole all the same, as writers rename.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _now() -> str:
    """The time in UTC to the second, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _secrets(argv: Sequence[str]) -> list[str]:
    """The values that `without_secrets` hides."""
    changed = [(old, new) for old, new in zip(argv, without_secrets(argv), strict=True) if old != new]
    values = [old if new == HIDDEN else old.partition("=")[2] for old, new in changed]
    return [value for value in values if len(value) >= 8]  # shorter ones are no tokens, but words such as true


def _hide(value: Any, secrets: Sequence[str]) -> Any:
    """The value without the secrets, wherever a message quotes them."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, HIDDEN)
        return value
    if isinstance(value, Mapping):
        return {name: _hide(one, secrets) for name, one in value.items()}
    return [_hide(one, secrets) for one in value] if isinstance(value, list) else value
