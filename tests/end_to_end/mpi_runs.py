"""Starts run_squad.py under mpirun as the guide does, and makes one of its ranks fail at a chosen step.

Run as a program it is a rank: python mpi_runs.py FAULT RANK STEP run_squad.py's words.
"""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_runs import REPOSITORY, Outcome

# As in the guide, but for --oversubscribe, which lets more processes start than the machine has cores.
MPIRUN = (
    "mpirun -np {count} -H localhost:{count} --allow-run-as-root -bind-to none -map-by slot -x NCCL_DEBUG=INFO "
    "-x LD_LIBRARY_PATH -x PATH -mca pml ob1 -mca btl ^openib --oversubscribe"
)
HANG_SECONDS = 600


def require_horovod() -> None:
    """Skips where mpirun or Horovod is missing; `make test` installs both."""
    import importlib.util

    if shutil.which("mpirun") is None or importlib.util.find_spec("horovod") is None:
        pytest.skip("mpirun or Horovod is not installed: make horovod installs both")


@dataclass
class Launch:
    """A started mpirun; `seconds`, from the fault or signal to the end of mpirun, is known after `finish`."""

    process: subprocess.Popen[str]
    signaled: float = 0.0
    seconds: float = 0.0

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to mpirun."""
        self.signaled = time.time()
        self.process.send_signal(number)

    def wait_for(self, pattern: str) -> None:
        """Reads the log until a line matches."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if re.search(pattern, line):
                return
        raise AssertionError(f"{pattern!r} was never logged")

    def finish(self, timeout: float = 240) -> Outcome:
        """How the job ended; the test fails if a rank is left."""
        try:
            out, err = self.process.communicate(timeout=timeout)
        finally:
            self.process.kill()
        fault = re.search(r"fault at ([\d.]+);", err)
        self.seconds = time.time() - (float(fault[1]) if fault else self.signaled)
        return Outcome(self.process.returncode, out, err)


def launch(
    *arguments: str, cwd: Path, count: int = 2, script: str = "run_squad.py", fault: str = "", starter: str = MPIRUN
) -> Launch:
    """Starts `count` ranks; `fault` is "KIND RANK STEP", see `main`."""
    program = [str(REPOSITORY / script)]
    if fault:
        program = [str(Path(__file__).resolve()), *fault.split()]
    # Where the guide's shells have a library path, mpirun -x does not complain of its absence.
    environment = {"LD_LIBRARY_PATH": "", **os.environ}
    environment.pop("OMP_NUM_THREADS", None)
    process = subprocess.Popen(
        [*starter.format(count=count).split(), sys.executable, *program, *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return Launch(process)


def mpirun(*arguments: str, cwd: Path, **keywords: object) -> Outcome:
    """Runs to the end, which must be a good one."""
    outcome = launch(*arguments, cwd=cwd, **keywords).finish()  # type: ignore[arg-type]
    assert outcome.code == 0, outcome.err
    return outcome


def ranks_left(folder: Path, seconds: float = 10.0) -> list[str]:
    """Processes that work in `folder` and do not end within `seconds`: mpirun may end before them."""
    limit = time.monotonic() + seconds
    while (found := _processes_in(folder)) and time.monotonic() < limit:
        time.sleep(0.1)
    return found


def _processes_in(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.readlink(entry / "cwd") == str(folder) and (entry / "stat").read_text().split()[2] != "Z":
                    found.append(entry.name)
            except OSError:
                continue  # it has ended meanwhile
    return found


def main(kind: str, rank: str, step: str, arguments: list[str]) -> None:
    """run_squad.py whose rank RANK fails when it is to take step STEP (counted over resumed runs).

    KIND "differs": the exported model fails its check, on whatever rank that is made.
    """
    sys.path.insert(0, str(REPOSITORY))
    sys.argv = ["run_squad.py", *arguments]
    import run_squad
    from training.loop import TrainingLoop
    from training.script import run_script
    from twinquant.squad_flags import PROGRAM

    take = TrainingLoop._step

    def failing(self: TrainingLoop, number: int) -> float:
        if number == int(step) and os.environ["OMPI_COMM_WORLD_RANK"] == rank:
            fail(kind)
        return take(self, number)

    TrainingLoop._step = failing  # type: ignore[method-assign]
    if kind == "differs":
        let_checks_fail()
    sys.exit(run_script(run_squad.main, PROGRAM))


def let_checks_fail() -> None:
    from export.verdict import Verdict

    judge = Verdict.judge

    def differ(self: Verdict, *bounds: Any) -> None:
        judge(self, *bounds)
        self.failures = ["it differs on purpose"]

    Verdict.judge = differ  # type: ignore[method-assign]


def fail(kind: str) -> None:
    sys.stderr.write(f"fault at {time.time():.3f};\n")
    sys.stderr.flush()
    if kind == "raises":
        raise RuntimeError("a defect on purpose")
    if kind == "hangs":
        time.sleep(HANG_SECONDS)
    if kind == "disk":
        # No file may grow beyond 10 KB from now on, as on a disk that is nearly full.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    if kind == "exits":
        sys.exit(0)  # too early, and as if all were well
    if kind in ("SIGKILL", "SIGSTOP"):
        os.kill(os.getpid(), getattr(signal, kind))


if __name__ == "__main__":
    main(*sys.argv[1:4], sys.argv[4:])
