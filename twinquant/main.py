"""How the scripts end: a user's mistake is one line and exit code 2, a defect of ours keeps its traceback."""

import errno
import os
import sys
import time
from collections.abc import Callable, Sequence

from twinquant.errors import UserError
from twinquant.messages import rank_of_launch

SPEAKING_SECONDS = 1.5
LONGEST_LINE = 2000
# A file in a folder that may not be entered, or whose name is too long, is met wherever it is first looked up.
_SURROUNDINGS = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO)


def run_main(function: Callable[[Sequence[str]], int | None], program: str, argv: Sequence[str] | None = None) -> int:
    """Call `function(argv)` and return the exit code for `sys.exit`.

    0 when the function returns None, else what it returns; 2 after a UserError, and where the system denies a file or
    its name is too long, with one sentence on standard error, "<program>: error: ..."; 130 after Ctrl-C and 141 where
    the reader of standard output has left (`| head`), as shells expect. Every other exception passes through.
    """
    try:
        code = function(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr, flush=True)
        return 130
    except BrokenPipeError:
        # Python writes what is left at its exit; it must find an open file then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (UserError, OSError) as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        rank = rank_of_launch()
        if rank > 0:
            # Most errors are met by all processes. Rank 0 is given the time to speak for all, and mpirun to end them.
            time.sleep(SPEAKING_SECONDS)
        where = f"rank {rank}: " if rank > 0 else ""
        print(f"{program}: error: {where}{one_line(sentence)}", file=sys.stderr, flush=True)
        return 2
    return 0 if code is None else code


def sentence_of(error: UserError | OSError) -> str | None:
    """What to say to the user; None for an error that is a defect of ours, as far as its type tells."""
    if isinstance(error, UserError):
        return str(error)
    if error.errno in _SURROUNDINGS and error.filename is not None:
        return f"cannot use {os.fsdecode(error.filename)}: {error.strerror}"
    return None


def one_line(sentence: str) -> str:
    """A sentence as one line of at most LONGEST_LINE characters, also where it quotes a value of any length."""
    line = " ".join(sentence.split())
    if len(line) <= LONGEST_LINE:
        return line
    left_out = len(line) - LONGEST_LINE
    return f"{line[: LONGEST_LINE // 2]} [{left_out} characters left out] {line[-LONGEST_LINE // 2 :]}"
