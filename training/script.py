"""What the scripts at the root have in common: the start of a run, and its end when somebody stops it."""

import logging
from collections.abc import Callable
from typing import Any

from training import progress
from training.interruption import Interrupted
from training.launch import check_launch
from twinquant.flag_rules import resolve_backend
from twinquant.memory import keep_freed_memory
from twinquant.messages import set_up_messages
from twinquant.settings import CommonSettings

logger = logging.getLogger("twinquant")


def begin(settings: CommonSettings) -> str:
    """Says what the flags mean and returns the name of the backend.

    Raises UserError where the backend is not installed, or where several processes were started.
    """
    set_up_messages(settings.verbose_logging)
    launch_note = check_launch(settings.horovod)
    backend, backend_note = resolve_backend(settings.backend, dialect=settings.dialect)
    notes = [*settings.notes, launch_note, backend_note]
    for line in (settings.describe_given(), *filter(None, notes), f"backend: {backend}"):
        logger.info("%s", line)
    progress.bars_wanted = not settings.disable_progress_bar
    keep_freed_memory()
    return backend


def until_interrupted(work: Callable[[], dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    """The exit code and the scores of `work`; after SIGTERM or Ctrl-C the signal's exit code and no scores."""
    try:
        return 0, work()
    except Interrupted as interruption:
        logger.warning("%s", interruption)
        return interruption.exit_code, {}
