"""What the scripts at the root have in common: the start and the end of a run, alone or as one of several processes."""

import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from backends.collectives import ProcessLost
from training import progress
from training.interruption import Interrupted
from training.launch import launch, started_processes
from training.processes import PeerFailed, Processes
from training.watchdog import EXIT_CODE
from twinquant.flag_rules import resolve_backend
from twinquant.main import SPEAKING_SECONDS, run_main
from twinquant.memory import keep_freed_memory
from twinquant.messages import rank_of_launch, set_up_messages
from twinquant.settings import CommonSettings

logger = logging.getLogger("twinquant")


def begin(settings: CommonSettings) -> tuple[str, Processes]:
    """Says what the flags mean; returns the name of the backend and the processes that this one is part of.

    Raises UserError where the backend is not installed, or where several processes cannot train together.
    """
    set_up_messages(settings.verbose_logging)
    backend, backend_note = resolve_backend(settings.backend, dialect=settings.dialect)
    processes, launch_notes = launch(settings, backend)
    notes = [*settings.notes, *launch_notes, backend_note]
    for line in (settings.describe_given(), *filter(None, notes), f"backend: {backend}"):
        logger.info("%s", line)
    progress.bars_wanted = not settings.disable_progress_bar and processes.is_first
    keep_freed_memory()
    return backend, processes


def until_interrupted(work: Callable[[], dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    """The exit code and the scores of `work`; after SIGTERM or Ctrl-C the signal's exit code and no scores."""
    try:
        return 0, work()
    except Interrupted as interruption:
        logger.warning("%s", interruption)
        return interruption.exit_code, {}


def run_script(main: Callable[[Sequence[str]], int | None], program: str, argv: Sequence[str] | None = None) -> int:
    """`run_main` for a process that may be one of several; the exit code for `sys.exit`.

    One of several that fails leaves at once, without Horovod's and MPI's own ends, which wait for the other processes:
    mpirun sees that it failed, and ends the others.
    """
    if started_processes()[0] == 1:
        return run_main(main, program, argv)
    try:
        code = run_main(main, program, argv)
    except PeerFailed as error:
        code = error.exit_code
    except ProcessLost as error:
        time.sleep(SPEAKING_SECONDS)  # in which the one that was lost may say why
        print(f"{program}: error: rank {rank_of_launch()} lost the other processes: {error}", file=sys.stderr)
        code = EXIT_CODE
    except Exception:
        traceback.print_exc()
        code = 1
    if code != 0:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return 0
