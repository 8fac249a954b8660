"""Writes docs/licenses.md: every package that `make venv` installs, with version and license. `make lock` calls it.

Licenses are what the packages say of themselves: their License-Expression, else a short License, else classifiers.
"""

import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path

from install.lock import LEFT_OUT, ROOT, lock_path, normalized, read_lock, read_pins
from twinquant.errors import UserError
from twinquant.files import write_bytes_atomically
from twinquant.main import run_main

PAGE = ROOT / "docs/licenses.md"
LONGEST = 120
_HEAD = """\
# Licenses of what is installed

twinquant itself is under Apache-2.0 (LICENSE). `make venv` installs the packages below for Python 3.11 on Linux x86-64;
they come from the package registry and are no part of this repository. Licenses are given as the packages' own metadata
states them, which says nothing of libraries that a wheel holds inside. Written by `python -m install.licenses`; a test
compares names and versions with [requirements/](../requirements).

Installed on demand only, and so not listed: Horovod (`make horovod`), optimum (`make optimum`), OpenVINO, NNCF and
accelerate (the extras `openvino` and `peers`).

| package | version | license |
|---|---|---|
"""


def license_of(name: str) -> str:
    """What an installed package says of its license."""
    metadata = importlib.metadata.metadata(name)
    fields = {field: metadata[field] for field in ("License-Expression", "License") if field in metadata}
    if "License-Expression" in fields:
        return fields["License-Expression"]
    text = fields.get("License", "").strip()
    if text and "\n" not in text and len(text) <= LONGEST:
        return text.removeprefix("OSI Approved :: ")
    listed = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier") or [] if line.startswith("License")]
    return ", ".join(listed) or "see the license file in the package"


def expected_versions() -> dict[str, str]:
    """Version by normalized name: the locked packages of Python 3.11, and torch's pin."""
    versions = {name: version for name, (version, _) in read_lock(lock_path("3.11")).items()}
    return versions | {"torch": read_pins().torch.partition("==")[2]}


def page() -> str:
    """The page's text. UserError where a package is not installed here in the version that is locked."""
    installed = {normalized(one.metadata["Name"]): one.version for one in importlib.metadata.distributions()}
    lines = []
    for name, version in sorted(expected_versions().items()):
        found = installed.get(name, "none")
        # torch's version may name its build: 2.13.0+cpu.
        if found.partition("+")[0] != version if LEFT_OUT.fullmatch(name) else found != version:
            raise UserError(f"{name} {found} is installed, expected {version}: `make venv` installs what is locked")
        lines.append(f"| {name} | {version} | {license_of(name)} |\n")
    return _HEAD + "".join(lines)


def read_page(path: Path = PAGE) -> dict[str, str]:
    """Version by name, as the page has them."""
    rows = [line.split(" | ") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return {row[0].removeprefix("| "): row[1] for row in rows[1:]}


def main(arguments: Sequence[str]) -> None:
    """Takes no arguments."""
    if arguments:
        raise UserError(f"no arguments are taken, found {' '.join(arguments)}")
    write_bytes_atomically(PAGE, page().encode("utf-8"))
    print(f"licenses: wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(run_main(main, "install.licenses"))
