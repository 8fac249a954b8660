"""python -m export COMMAND: see the help of each command."""

import sys
from collections.abc import Sequence

from export.commands import run_check, run_onnx, run_triton
from export.compare.command import run_compare
from export.sensitivity.command import run_sensitivity
from twinquant.errors import UserError
from twinquant.main import run_main

COMMANDS = {
    "onnx": run_onnx,
    "check": run_check,
    "compare": run_compare,
    "sensitivity": run_sensitivity,
    "triton": run_triton,
}
HELP = """python -m export COMMAND --help

onnx         write a checkpoint as an ONNX model, checked before it gets its name
check        compare an exported model with its checkpoint
compare      a checkpoint in every runtime and precision: accuracy, size, memory, speed; a table and a page
sensitivity  what each quantizer costs, and which ones to leave in float
triton       put an exported model into a model repository of the Triton Inference Server"""


def main(argv: Sequence[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return 0
    command, *rest = argv
    if command not in COMMANDS:
        raise UserError(f"unknown command {command!r}; expected one of {', '.join(COMMANDS)}")
    return COMMANDS[command](list(rest))


if __name__ == "__main__":
    sys.exit(run_main(main, "python -m export"))
