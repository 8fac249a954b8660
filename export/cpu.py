"""Whether onnxruntime's u8 x s8 kernels are exact on a CPU: they are with VNNI, and on Arm."""

import platform
from pathlib import Path

CPUS = ("this", "vnni", "avx512", "avx2", "arm")
# As /proc/cpuinfo spells them.
_VNNI_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8"}


def has_vnni(cpu: str = "this", cpuinfo: str | Path = "/proc/cpuinfo") -> bool:
    """Whether int8 products of that CPU (one of CPUS) add up in 32 bits at once.

    Without VNNI, vpmaddubsw adds pairs of products in 16 bits and saturates. Where this CPU cannot be told, the answer
    is False, which is safe everywhere.
    """
    if cpu != "this":
        return cpu in ("vnni", "arm")
    if platform.machine().lower() in ("aarch64", "arm64"):
        return True
    try:
        lines = Path(cpuinfo).read_text().splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return bool(_VNNI_FLAGS.intersection(flags))
