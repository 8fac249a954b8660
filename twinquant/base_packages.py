"""What a script needs before its first import: a Python that is new enough, and the packages of every installation.

Imports the standard library alone, and runs on older Pythons too, so that it can say what is wrong with them.
"""

import os
import sys
from importlib.util import find_spec

OLDEST_PYTHON = (3, 11)  # requires-python in pyproject.toml
# Modules of the dependencies in pyproject.toml, and the packages that they come from.
BASE_PACKAGES = {
    "google_crc32c": "google-crc32c",
    "numpy": "numpy",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "tokenizers": "tokenizers",
    "tqdm": "tqdm",
}


def require_base_packages(program: str) -> None:
    """Ends the process with exit code 2 and one sentence where this Python is too old or lacks a package."""
    missing = [package for module, package in BASE_PACKAGES.items() if find_spec(module) is None]
    if sys.version_info < OLDEST_PYTHON:
        what = f"is Python {sys.version_info[0]}.{sys.version_info[1]}, but at least 3.11 is needed"
    elif missing:
        what = f"lacks the package{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
    else:
        return
    print(f"{program}: error: {sys.executable} {what}; {_what_to_do(program)}", file=sys.stderr, flush=True)
    raise SystemExit(2)


def _what_to_do(program: str) -> str:
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    environment = os.path.join(root, ".venv")
    python = os.path.join(environment, "bin", "python")
    if not os.path.exists(python):
        return "`make venv` or `pip install .` in the project's folder installs what is needed (docs/installation.md)."
    if os.path.realpath(sys.prefix) == os.path.realpath(environment):
        return "`make venv` in the project's folder installs what is needed."
    shown = os.path.relpath(environment)
    words = program.split()
    script = program if words[0] == "python" else os.path.relpath(os.path.join(root, program))
    command = f"`{shown}/bin/python {script.removeprefix('python ')}`"
    if words[0] != "python" and not program.endswith(".py"):  # a console script
        command = f"`{shown}/bin/{program}`"
    return f"use {command}, or activate the environment first: `source {shown}/bin/activate`."
