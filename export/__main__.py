"""python -m export COMMAND: see the help of each command."""

import importlib
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from twinquant.base_packages import require_base_packages
from twinquant.errors import UserError
from twinquant.main import run_main

COMMANDS = {
    "onnx": ("export.commands", "run_onnx"),
    "check": ("export.commands", "run_check"),
    "compare": ("export.compare.command", "run_compare"),
    "sensitivity": ("export.sensitivity.command", "run_sensitivity"),
    "triton": ("export.commands", "run_triton"),
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
    require_base_packages("python -m export")
    if find_spec("onnx") is None:
        raise UserError(
            f"python -m export {command} needs the package onnx, not installed; pip install '.[export]' installs it"
        )
    module, function = COMMANDS[command]
    code: int = getattr(importlib.import_module(module), function)(list(rest))
    return code


if __name__ == "__main__":
    sys.exit(run_main(main, "python -m export"))
