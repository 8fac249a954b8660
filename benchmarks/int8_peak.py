"""The most that one core of this CPU can do, in 10**9 operations per second: python -m benchmarks.int8_peak

int8_peak.c beside this file is compiled with the system's C compiler and run; see there for what is measured.
"""

import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from twinquant.errors import UserError
from twinquant.main import run_main

SOURCE = Path(__file__).with_suffix(".c")
# By preference: the instructions, the CPU flags they need (as /proc/cpuinfo spells them), and the compiler's option.
INSTRUCTIONS = (
    ("avx512vnni", {"avx512f", "avx512_vnni"}, "-DWITH_AVX512"),
    ("avxvnni", {"avx2", "fma", "avx_vnni"}, "-DWITH_AVXVNNI"),
    ("avx2", {"avx2", "fma"}, ""),
)


@dataclass(frozen=True)
class Peak:
    """10**9 operations per second of one thread, a multiplication with its addition counting as two."""

    instructions: str
    int8: float
    fp32: float

    def __str__(self) -> str:
        return f"{self.int8:.0f} int8 and {self.fp32:.0f} fp32 GOP/s of one thread ({self.instructions})"


def choose_instructions(cpuinfo: str | Path = "/proc/cpuinfo") -> tuple[str, str]:
    """The best instructions of this CPU and the compiler's option for them; UserError where it has none of them."""
    flags: set[str] = set()
    if platform.machine().lower() in ("x86_64", "amd64"):
        lines = Path(cpuinfo).read_text().splitlines()
        flags = next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
    for name, needed, option in INSTRUCTIONS:
        if needed <= flags:
            return name, option
    raise UserError("the int8 peak is measured on x86-64 CPUs with AVX2 or better; this one has neither")


def measure_peak(seconds: float = 1.0) -> Peak:
    """Compiles and runs the loops, `seconds` each; UserError without a compiler or with one that is too old."""
    instructions, option = choose_instructions()
    compiler = next((path for path in map(shutil.which, ("cc", "gcc", "clang")) if path), None)
    if compiler is None:
        raise UserError("the int8 peak needs a C compiler: none of cc, gcc, clang was found")
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder, "int8_peak"))
        built = subprocess.run(
            [compiler, "-O2", *option.split(), "-o", program, str(SOURCE)], capture_output=True, text=True
        )
        if built.returncode:
            reason = (built.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"{compiler} cannot compile {SOURCE.name} with {instructions}: {reason}")
        found = {
            kind: float(subprocess.check_output([program, instructions, kind, str(seconds)], text=True))
            for kind in ("int8", "fp32")
        }
    return Peak(instructions, found["int8"], found["fp32"])


def main(argv: list[str]) -> None:
    if argv:
        raise UserError(f"found {' '.join(argv)}; this command takes no arguments")
    print(measure_peak())


if __name__ == "__main__":
    sys.exit(run_main(main, "benchmarks.int8_peak"))
