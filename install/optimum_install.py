"""Makes an environment with optimum: `python -m install.optimum_install`, or `make optimum`.

optimum-onnx needs an older transformers than the rest of the project, so it lives in an environment of its own,
build/optimum, which the tests and benchmarks that need optimum call. Versions: [tool.twinquant.optimum] of
pyproject.toml; torch, onnx and onnxruntime as the project has them.
"""

import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from twinquant.errors import UserError
from twinquant.main import run_main

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / "build/optimum"
READY = "ready"  # holds the requirements that are installed


def environment_python() -> Path | None:
    """The interpreter that has optimum: of OPTIMUM_ENVIRONMENT (a folder) where that is set, else of build/optimum.

    None where there is none. UserError where OPTIMUM_ENVIRONMENT names a folder that is no environment.
    """
    named = os.environ.get("OPTIMUM_ENVIRONMENT")
    if named:
        python = Path(named, "bin/python")
        if not python.is_file():
            raise UserError(f"OPTIMUM_ENVIRONMENT names {named}, which holds no bin/python")
        return python
    python = ENVIRONMENT / "bin/python"
    return python if (ENVIRONMENT / READY).is_file() and python.is_file() else None


def requirements(pyproject: Path = ROOT / "pyproject.toml") -> list[list[str]]:
    """What is installed, in two steps: torch alone, so that its pin wins, then the rest."""
    with open(pyproject, "rb") as file:
        content = tomllib.load(file)
    extras = content["project"]["optional-dependencies"]
    return [extras["pytorch"], [*content["tool"]["twinquant"]["optimum"]["requirements"], *extras["export"]]]


def main(argv: Sequence[str]) -> None:
    if argv:
        raise UserError(f"found {' '.join(argv)}; this command takes no arguments")
    steps = requirements()
    wanted = "\n".join(line for step in steps for line in step) + "\n"
    ready = ENVIRONMENT / READY
    if ready.is_file() and ready.read_text(encoding="utf-8") == wanted:
        return
    ready.unlink(missing_ok=True)
    python = ENVIRONMENT / "bin/python"
    commands = [] if python.is_file() else [[sys.executable, "-m", "venv", str(ENVIRONMENT)]]
    commands += [[str(python), "-m", "pip", "install", "--quiet", *step] for step in steps]
    commands += [[str(python), "-c", "import optimum.onnxruntime"]]
    for command in commands:
        print(" ".join(command), flush=True)
        if subprocess.run(command).returncode:
            raise UserError(f"this command failed, see above: {' '.join(command)}")
    ready.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_main(main, "install.optimum_install"))
