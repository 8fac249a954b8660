"""How the scripts end: a user's mistake is one line and exit code 2, a defect of ours keeps its traceback."""

import os
import sys
import time
from collections.abc import Callable, Sequence

from twinquant.errors import UserError
from twinquant.messages import rank_of_launch

SPEAKING_SECONDS = 1.5


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
        # One line, also where a sentence quotes a value that has line breaks.
        print(f"{program}: error: {where}{' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr, flush=True)
        return 130
    except BrokenPipeError:
        # Python writes what is left at its exit; it must find an open file then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0 if code is None else code
