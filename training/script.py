"""What the scripts at the root have in common: the start and the end of a run, alone or as one of several processes."""

import contextlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from backends.collectives import ProcessLost
from training import progress
from training.interruption import Interrupted
from training.launch import launch, started_processes
from training.processes import PeerFailed, Processes
from training.watchdog import EXIT_CODE
from twinquant.errors import UserError
from twinquant.flag_rules import resolve_backend
from twinquant.main import SPEAKING_SECONDS, run_main, sentence_of
from twinquant.memory import keep_freed_memory
from twinquant.messages import rank_of_launch, set_up_messages
from twinquant.run_record import FAILED, FINISHED, INTERRUPTED, RunRecord
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


def record_of(
    settings: CommonSettings, program: str, argv: Sequence[str], backend: str, processes: Processes
) -> RunRecord:
    """The record of this run, for run.json in its output folder; of several processes rank 0 writes it."""
    return RunRecord(
        settings.output_dir,
        program,
        argv,
        settings.to_dict(),
        {"backend": backend, "processes": processes.size},
        writes=processes.is_first,
    )


@contextlib.contextmanager
def recorded(record: RunRecord) -> Iterator[RunRecord]:
    """Closes the record when the block ends, with what ended it and the exit code that `run_main` makes of it."""
    try:
        yield record
    except Interrupted as error:
        record.close(INTERRUPTED, str(error), error.exit_code)
        raise
    except KeyboardInterrupt:
        record.close(INTERRUPTED, "Ctrl-C", 130)
        raise
    except BrokenPipeError:
        record.close(FAILED, "the reader of standard output has left", 141)
        raise
    except (UserError, OSError) as error:
        sentence = sentence_of(error)
        record.close(FAILED, sentence or f"{type(error).__name__}: {error}", 2 if sentence else 1)
        raise
    except PeerFailed as error:
        record.close(FAILED, str(error), error.exit_code)
        raise
    except ProcessLost as error:
        record.close(FAILED, f"lost the other processes: {error}", EXIT_CODE)
        raise
    except BaseException as error:
        record.close(FAILED, f"{type(error).__name__}: {error}", 1)
        raise
    record.close(FINISHED)


def until_interrupted(work: Callable[[], dict[str, Any]], record: RunRecord) -> tuple[int, dict[str, Any]]:
    """The exit code and the scores of `work`; after SIGTERM or Ctrl-C the signal's exit code and no scores.

    Both are noted in the record, which is closed by an interruption.
    """
    try:
        scores = work()
    except Interrupted as interruption:
        logger.warning("%s", interruption)
        record.close(INTERRUPTED, str(interruption), interruption.exit_code)
        return interruption.exit_code, {}
    record.note(results=dict(scores))
    return 0, scores


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
