"""How the scripts end: a user's mistake is one line and exit code 2, a defect of ours keeps its traceback."""

import os
import sys
import time
from collections.abc import Callable, Sequence

from twinquant.errors import UserError
from twinquant.messages import rank_of_launch

SPEAKING_SECONDS = 1.5
LONGEST_LINE = 2000


def run_main(function: Callable[[Sequence[str]], int | None], program: str, argv: Sequence[str] | None = None) -> int:
    """Call `function(argv)` and return the exit code for `sys.exit`.

    0 when the function returns None, else what it returns; 2 after a UserError, whose sentence is written to standard
    error as "<program>: error: ..."; 130 after Ctrl-C and 141 where the reader of standard output has left (`| head`),
    as shells expect. Every other exception passes through.
    """
    try:
        code = function(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except UserError as error:
        rank = rank_of_launch()
        if rank > 0:
            # Most errors are met by all processes. Rank 0 is given the time to speak for all, and mpirun to end them.
            time.sleep(SPEAKING_SECONDS)
        where = f"rank {rank}: " if rank > 0 else ""
        print(f"{program}: error: {where}{one_line(str(error))}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr, flush=True)
        return 130
    except BrokenPipeError:
        # Python writes what is left at its exit; it must find an open file then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0 if code is None else code


def one_line(sentence: str) -> str:
    """A sentence as one line of at most LONGEST_LINE characters, also where it quotes a value of any length."""
    line = " ".join(sentence.split())
    if len(line) <= LONGEST_LINE:
        return line
    left_out = len(line) - LONGEST_LINE
    return f"{line[: LONGEST_LINE // 2]} [{left_out} characters left out] {line[-LONGEST_LINE // 2 :]}"
