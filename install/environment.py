"""Installs all but Horovod into the interpreter that runs this: `python -m install.environment`, or `make venv`.

Where requirements/ has a file for this Python and platform, pip takes nothing that has not the hash it names, but
torch (see install/lock.py). Elsewhere, and with --unlocked, versions are pinned and files are not checked.
"""

import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from install.lock import ROOT, disagreements, lock_path, read_lock, read_pins
from twinquant.errors import UserError
from twinquant.main import run_main

UNLOCKED = "--unlocked"


def find_lock() -> Path | None:
    """The file of hashes for this interpreter; None where there is none."""
    path = lock_path(f"{sys.version_info.major}.{sys.version_info.minor}")
    fits = sys.platform == "linux" and os.uname().machine == "x86_64" and sys.implementation.name == "cpython"
    return path if fits and path.is_file() else None


def steps(lock: Path | None) -> list[list[str]]:
    """The arguments of pip, call by call."""
    pins = read_pins()
    with open(ROOT / "pyproject.toml", "rb") as file:
        extras = tomllib.load(file)["tool"]["twinquant"]["environment"]["extras"]
    here = f".[{','.join(extras)}]"
    if lock is None:
        # torch first and alone: the pin that names a CPU build must win before anything else asks for torch.
        return [[pins.torch], ["--editable", here], ["--no-deps", *pins.bare]]
    # What builds the package is among the files with hashes, so that the build downloads nothing either.
    return [
        ["--no-deps", "--require-hashes", "--only-binary=:all:", "-r", str(lock.relative_to(ROOT))],
        [pins.torch],
        ["--no-build-isolation", "--editable", here],
    ]


def main(arguments: Sequence[str]) -> None:
    """Takes --unlocked or nothing."""
    if arguments not in ([], [UNLOCKED]):
        raise UserError(f"found {' '.join(arguments)}; expected {UNLOCKED} or nothing")
    if sys.prefix == sys.base_prefix:
        raise UserError(f"{sys.executable} is not of a virtual environment; `make venv` makes one and calls this in it")
    lock = None if arguments else find_lock()
    if lock is not None and (lacking := disagreements(read_pins(), read_lock(lock))):
        raise UserError(
            f"{lock.relative_to(ROOT)} lacks {', '.join(lacking)} of pyproject.toml: `make lock` writes it anew"
        )
    if lock is None:
        why = "as told" if arguments else "requirements/ has no file for this Python and platform"
        print(f"environment: versions are pinned, but no file's hash is checked ({why})", file=sys.stderr, flush=True)
    for words in steps(lock):
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words]
        # setuptools warns of every editable installation of a project without a src folder.
        if subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONWARNINGS": "ignore"}).returncode:
            hint = ""
            if lock is not None:
                hint = (
                    "; where your registry serves other files under the same versions, `make venv UNLOCKED=1` installs "
                    "by version alone"
                )
            raise UserError(f"this failed, see above: pip install {' '.join(words)}{hint}")


if __name__ == "__main__":
    sys.exit(run_main(main, "install.environment"))
