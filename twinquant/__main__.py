"""The command `twinquant`, from a clone `python -m twinquant`: what has to do with no single script."""

import sys
from collections.abc import Sequence

from twinquant import __version__
from twinquant.errors import UserError
from twinquant.main import run_main
from twinquant.runs_table import run_runs

COMMANDS = {"runs": run_runs}
HELP = """twinquant COMMAND --help

runs   the runs that left a record in a folder or below it, as a table

The scripts are run_squad.py and run_glue.py; python -m export writes and compares models."""


def main(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return 0
    if argv[0] == "--version":
        print(f"twinquant {__version__}")
        return 0
    command, *rest = argv
    if command not in COMMANDS:
        raise UserError(f"unknown command {command!r}; expected one of {', '.join(COMMANDS)}")
    return COMMANDS[command](rest)


def console_script() -> int:
    """The entry point that pip installs."""
    return run_main(main, "twinquant")


if __name__ == "__main__":
    sys.exit(console_script())
