"""Which commit the running code is of."""

import functools
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@functools.cache
def git_revision(root: Path = ROOT) -> dict[str, Any] | None:
    """{"commit": 40 hex digits, "changed": whether tracked files differ from it}; None outside a clone or without git.

    An installed package may lie in somebody else's clone (a virtual environment there): only a clone whose root is the
    root of this project counts.
    """
    top = _git(root, "rev-parse", "--show-toplevel")
    commit = _git(root, "rev-parse", "HEAD")
    if top is None or commit is None or Path(top).resolve() != root:
        return None
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "changed": changes is None or changes != ""}


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
