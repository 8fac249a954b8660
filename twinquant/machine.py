"""What a run or a measurement was made on: processor, memory, system, versions."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from export.cpu import has_vnni

PACKAGES = ("twinquant", "torch", "tensorflow", "onnxruntime", "onnx", "openvino", "numpy")
# What decides which kernels run, as /proc/cpuinfo spells it on x86-64 and on Arm.
DECISIVE_FLAGS = (
    "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
    "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "sve", "sve2", "bf16",
)  # fmt: skip


def describe_machine(cpuinfo: str | Path = "/proc/cpuinfo") -> dict[str, Any]:
    """Facts of this machine, as values for JSON; what cannot be told is None or left out."""
    facts = _cpu_facts(cpuinfo)
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    return {
        "cpu": facts.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": available_cores(),
        "vnni": has_vnni("this", cpuinfo),
        "decisive_cpu_flags": [flag for flag in DECISIVE_FLAGS if flag in flags],
        "cpu_flags": flags,
        "memory_bytes": memory_bytes(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": installed_versions(),
        "load_before": _load(),
    }


def available_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int | None:
    """The machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def installed_versions() -> dict[str, str]:
    """The versions of the installed ones among the packages that shape a result."""
    return {name: found for name in PACKAGES if (found := _version(name)) is not None}


def machine_lines(machine: dict[str, Any]) -> list[str]:
    """The facts in words, a line each."""
    memory = f", {machine['memory_bytes'] / 1e9:.1f} GB of memory" if machine["memory_bytes"] else ""
    vnni = "with VNNI" if machine["vnni"] else "without VNNI"
    versions = ", ".join(f"{name} {found}" for name, found in machine["versions"].items())
    return [
        f"{machine['cpu']} ({machine['architecture']}, {vnni}), {machine['cores']} cores{memory}",
        f"CPU flags that choose kernels: {' '.join(machine['decisive_cpu_flags']) or 'unknown'}",
        f"{machine['system']}, Python {machine['python']}",
        versions,
    ]


def _load() -> list[float] | None:
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None


def _cpu_facts(cpuinfo: str | Path) -> dict[str, str]:
    """The first processor's."""
    try:
        lines = Path(cpuinfo).read_text().splitlines()
    except OSError:
        return {}
    pairs = [[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]
    return dict(reversed([(name, value) for name, value in pairs]))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
