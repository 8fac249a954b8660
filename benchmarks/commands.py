"""Plain commands of this project, run one after the other, and what they wrote: for the demo and tables of results."""

import json
import os
import resource
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinquant.errors import UserError
from twinquant.files import make_folder, write_json_atomically

ROOT = Path(__file__).resolve().parents[1]
LOG = "log.txt"
_SHOWN = ("error", "warning", "loss", "saved", "predicted", "ranges found")
_LAST_LINES = 5
# PyTorch's threads would spin while they wait for one another. With one core of two taken by another program, a
# prediction of 4 seconds took 46 so; results are the same to the bit.
_ENVIRONMENT = {"OMP_WAIT_POLICY": "passive"}


class CommandFailed(UserError):
    """A command ended with another exit code than 0; the message names its log."""


@dataclass
class Command:
    """One command: its name in a table, its backend, its further flags and its output folder."""

    name: str
    backend: str
    flags: str
    folder: Path
    program: str = "run_squad.py"
    output_flag: str = "--output_dir"

    @property
    def words(self) -> list[str]:
        """The command line after `python`."""
        program = [*shlex.split(self.program), f"--backend={self.backend}"]
        return [*program, *shlex.split(self.flags), f"{self.output_flag}={self.folder}"]

    def run(self) -> None:
        """Runs the command; all that it says goes to log.txt beside its results, the lines that matter to the terminal.

        Raises CommandFailed, after the last lines of the log, where the exit code is not 0.
        """
        # Short paths, which mean the same in the folder where the command runs.
        print(f"$ python {shlex.join(self.words)}".replace(f"{ROOT}/", ""), flush=True)
        make_folder(self.folder)
        started, processor_before = time.monotonic(), _processor_seconds_of_children()
        lines: list[str] = []
        with (
            open(self.folder / LOG, "w") as log,
            subprocess.Popen(
                [sys.executable, *self.words],
                cwd=ROOT,
                env=_ENVIRONMENT | os.environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as process,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                log.flush()
                lines.append(line)
                if any(word in line for word in _SHOWN):
                    print("  " + line, end="", flush=True)
        if process.returncode != 0:
            print("".join(["\nIts last lines:\n", *(f"  {line}" for line in lines[-_LAST_LINES:])]), flush=True)
            raise CommandFailed(
                f"the command of {self.name!r} with {self.backend} failed with exit code {process.returncode}; "
                f"its log is {self.folder / LOG}"
            )
        seconds = {
            "seconds": time.monotonic() - started,
            "processor_seconds": _processor_seconds_of_children() - processor_before,
            "words": self.words,
        }
        write_json_atomically(self.folder / "seconds.json", seconds)

    @property
    def done(self) -> bool:
        """Whether an earlier call has finished it. Raises UserError where that one's command line was another."""
        if not (self.folder / "seconds.json").exists():
            return False
        words = self.result("seconds.json").get("words", self.words)
        if words != self.words:
            changed = sorted(set(words) ^ set(self.words))
            raise UserError(f"{self.folder} holds results of another command line ({shlex.join(changed)}); remove it")
        return True

    @property
    def seconds(self) -> float:
        return self.result("seconds.json")["seconds"]

    @property
    def processor_seconds(self) -> float:
        """Seconds of processor time, of all its threads together."""
        return self.result("seconds.json")["processor_seconds"]

    def result(self, name: str) -> dict[str, Any]:
        """A JSON file that the command wrote."""
        return json.loads((self.folder / name).read_text())


def use_threads(count: int | None) -> None:
    """Lets the commands that follow compute with that many threads; None: as many as the frameworks choose."""
    if count is not None:
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), str(count))


def same_answers(one: dict, other: dict) -> float:
    """Share of questions with the same answer text, in percent."""
    return 100.0 * sum(other[question] == answer for question, answer in one.items()) / len(one)


def _processor_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
