"""Writes requirements/*.txt: version and SHA-256 of every file that `make venv` installs. `make lock` calls it.

pip chooses as it would for an installation (`--dry-run --report`), from the pins of pyproject.toml; of its report only
names, versions and hashes are kept, and not where the files came from.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinquant.errors import UserError
from twinquant.files import make_folder, write_bytes_atomically
from twinquant.main import run_main

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "requirements"
# Registries serve different files of torch under one version: builds for CPUs alone, and builds for CUDA with gigabytes
# of libraries. It is installed by its version, and what its CUDA builds alone depend on with it.
LEFT_OUT = re.compile(r"torch|triton|nvidia-.+|cuda-.+")
_HEAD = """\
# Written by `make lock` from the pins of pyproject.toml, for CPython {python} on Linux x86-64; not to be edited.
# torch=={torch} is not among them: registries serve different files of it, for CPUs or CUDA, under that version.
"""
_LINE = re.compile(r"([a-z0-9-]+)==(\S+) \\\n    --hash=sha256:([0-9a-f]{64})\n")


@dataclass(frozen=True)
class Pins:
    """What pyproject.toml says of the environment: requirements, torch's pin, and packages without dependencies."""

    requirements: list[str]
    torch: str
    bare: list[str]


def read_pins(path: Path = ROOT / "pyproject.toml") -> Pins:
    """Reads them; all are exact."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    project, table = content["project"], content["tool"]["twinquant"]["environment"]
    extras = [line for extra in table["extras"] for line in project["optional-dependencies"][extra]]
    requirements = sorted({*project["dependencies"], *extras})
    (torch,) = (line for line in requirements if normalized(line.partition("==")[0]) == "torch")
    return Pins(requirements, torch, table["bare"])


def normalized(name: str) -> str:
    """A package's name as indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def lock_path(python: str) -> Path:
    """The file for an interpreter of that version, such as "3.11"."""
    return FOLDER / f"linux-x86_64-cp{python.replace('.', '')}.txt"


def read_lock(path: Path) -> dict[str, tuple[str, str]]:
    """Version and SHA-256 by normalized name."""
    return {name: (version, digest) for name, version, digest in _LINE.findall(path.read_text(encoding="utf-8"))}


def disagreements(pins: Pins, lock: dict[str, tuple[str, str]]) -> list[str]:
    """Pins that the lock lacks or has in another version."""
    wanted = {
        normalized(name): version for name, _, version in (p.partition("==") for p in pins.requirements + pins.bare)
    }
    del wanted["torch"]
    return [f"{name}=={version}" for name, version in sorted(wanted.items()) if lock.get(name, ("",))[0] != version]


def lock_text(reports: Sequence[dict[str, Any]], python: str, torch: str) -> str:
    """The file's text from pip's reports. UserError for a file without a SHA-256."""
    lines = {}
    for item in (item for report in reports for item in report["install"]):
        name, version = normalized(item["metadata"]["name"]), item["metadata"]["version"]
        if LEFT_OUT.fullmatch(name):
            continue
        digest = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if not digest:
            raise UserError(f"pip's report has no SHA-256 of {name} {version}")
        lines[name] = f"{name}=={version} \\\n    --hash=sha256:{digest}\n"
    return _HEAD.format(python=python, torch=torch.partition("==")[2]) + "".join(lines[name] for name in sorted(lines))


def resolve(python: str, requirements: Sequence[str], *options: str) -> dict[str, Any]:
    """pip's report of what it would install into an empty environment of that interpreter; wheels alone."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        words = [
            "install",
            "--quiet",
            "--dry-run",
            "--ignore-installed",
            "--only-binary=:all:",
            "--report",
            str(report),
        ]
        process = subprocess.run([*_pip(python), *words, *options, *requirements], stderr=subprocess.PIPE, text=True)
        if process.returncode:
            errors = [line for line in process.stderr.splitlines() if line.startswith("ERROR")]
            raise UserError(f"pip for {python} failed: {' '.join(errors[:2]) or process.stderr.strip()[-300:]}")
        found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return found


def version_of(python: str) -> str | None:
    """ "3.11"; None where there is no such program, or it does not run."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        process = subprocess.run([python, "-c", code], capture_output=True, text=True)
    except OSError:
        return None
    return process.stdout.strip() if process.returncode == 0 else None


def _pip(python: str) -> list[str]:
    return [python, "-m", "pip", "--disable-pip-version-check"]


def main(arguments: Sequence[str]) -> int:
    """Takes interpreters; 1 where one of them is not there, whose file then stays as it is."""
    if not arguments:
        raise UserError("no interpreter is given; expected some, such as python3.11")
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        raise UserError(f"hashes are kept for Linux x86-64, this is {sys.platform} {os.uname().machine}")
    pins, missing = read_pins(), 0
    make_folder(FOLDER)
    for python in arguments:
        version = version_of(python)
        if version is None:
            print(f"lock: there is no {python} that runs; its file stays as it is", file=sys.stderr)
            missing = 1
            continue
        reports = [resolve(python, pins.requirements), resolve(python, pins.bare, "--no-deps")]
        text = lock_text(reports, version, pins.torch)
        write_bytes_atomically(lock_path(version), text.encode("ascii"))
        print(f"lock: wrote {lock_path(version).relative_to(ROOT)}, {text.count('--hash')} packages", flush=True)
    return missing


if __name__ == "__main__":
    sys.exit(run_main(main, "install.lock"))
