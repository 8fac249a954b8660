"""Plain run_squad.py commands, run one after the other, and what they wrote: for the demo and the table of results."""

import json
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from twinquant.errors import UserError
from twinquant.files import write_json_atomically

ROOT = Path(__file__).resolve().parents[1]
_SHOWN = ("error", "warning", "loss", "saved", "predicted", "ranges found")


@dataclass
class Command:
    """One command: its name in a table, its backend, its further flags and its output folder."""

    name: str
    backend: str
    flags: str
    folder: Path

    def run(self) -> None:
        """Runs the command; its log goes to a file beside its results, its errors to the terminal."""
        words = ["run_squad.py", f"--backend={self.backend}", *shlex.split(self.flags)]
        words.append(f"--output_dir={self.folder}")
        print(f"\n$ python {shlex.join(words)}", flush=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        with open(self.folder / "log.txt", "w") as log:
            process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stderr=subprocess.PIPE, text=True)
            assert process.stderr is not None
            for line in process.stderr:
                log.write(line)
                if any(word in line for word in _SHOWN):
                    print("  " + line, end="", flush=True)
        if process.wait() != 0:
            raise UserError(f"this command failed with exit code {process.returncode}; its log is {log.name}")
        write_json_atomically(self.folder / "seconds.json", {"seconds": time.monotonic() - started})

    @property
    def done(self) -> bool:
        """Whether an earlier call has finished it."""
        return (self.folder / "seconds.json").exists()

    @property
    def seconds(self) -> float:
        return self.result("seconds.json")["seconds"]

    def result(self, name: str) -> dict:
        """A JSON file that the command wrote."""
        return json.loads((self.folder / name).read_text())


def same_answers(one: dict, other: dict) -> float:
    """Share of questions with the same answer text, in percent."""
    return 100.0 * sum(other[question] == answer for question, answer in one.items()) / len(one)
