"""What the processor can do, asked without a framework."""

import logging
from pathlib import Path

logger = logging.getLogger("twinquant")

# As /proc/cpuinfo spells them on x86-64 (AVX-512 and AMX) and on Arm.
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def has_bfloat16(cpuinfo: str | Path = "/proc/cpuinfo") -> bool:
    """Whether the CPU multiplies bfloat16 itself; False where that cannot be told."""
    return bool(_BFLOAT16_FLAGS & _words(cpuinfo, "flags", "features"))


def has_int8_tiles(cpuinfo: str | Path = "/proc/cpuinfo") -> bool:
    """Whether the CPU has AMX for int8, as Intel's servers since Sapphire Rapids; False where that cannot be told."""
    return "amx_int8" in _words(cpuinfo, "flags")


def is_amd_with_avx512(cpuinfo: str | Path = "/proc/cpuinfo") -> bool:
    """Whether this is a CPU of AMD's with AVX-512, which MKL does not use there; False where that cannot be told."""
    return "AuthenticAMD" in _words(cpuinfo, "vendor_id") and "avx512f" in _words(cpuinfo, "flags")


def _words(cpuinfo: str | Path, *fields: str) -> set[str]:
    """What /proc/cpuinfo says in lines that begin so; nothing where there is no such file."""
    try:
        lines = Path(cpuinfo).read_text().splitlines()
    except OSError:
        return set()
    return {word for line in lines if line.lower().startswith(fields) for word in line.partition(":")[2].split()}


def half_precision_pays() -> bool:
    """Whether --use_fp16 means bfloat16 on this CPU; says loudly where it does not."""
    if has_bfloat16():
        return True
    logger.warning(
        "warning: --use_fp16 has no effect: this CPU has no bfloat16 instructions, and emulated ones would be many "
        "times slower than float32; computing in float32"
    )
    return False
