"""Whether the process that wrote a record is still there: a number alone does not tell, since numbers come back."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """What tells this process from every other one: machine, start of the machine, number, start of the process."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "boot": _boot(), "pid": pid, "started_ticks": _started_ticks(pid)}


def is_gone(identity: Mapping[str, Any]) -> bool | None:
    """Whether that process has ended; None where it ran on another machine, or where the system does not tell."""
    boot = _boot()
    if identity.get("host") != socket.gethostname() or boot is None:
        return None
    if identity.get("boot") != boot:
        return True
    return _started_ticks(identity.get("pid")) != identity.get("started_ticks")


def _boot() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _started_ticks(pid: Any) -> int | None:
    """Clock ticks from the machine's start to the process's (field 22 of /proc/<pid>/stat); None without a process."""
    if not isinstance(pid, int):  # of a damaged record, and no part of a path
        return None
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])  # the name in parentheses may hold spaces
