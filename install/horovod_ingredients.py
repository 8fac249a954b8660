"""What shapes a Horovod wheel: the pinned source, the frameworks, GPUs or not, and the machine that builds it."""

import hashlib
import importlib.metadata
import importlib.util
import json
import platform
import re
import runpy
import shutil
import sys
import sysconfig
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from twinquant.errors import UserError
from twinquant.files import sha256_of_file

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURE_FLAGS = {"f16c", "avx", "fma"}  # what Horovod's own build looks for in the CPU and compiles for


@dataclass(frozen=True)
class Pins:
    """What pyproject.toml says about Horovod."""

    version: str
    sha256: str  # of the source distribution
    requirements: tuple[str, ...]  # packages with versions

    @property
    def patch(self) -> Path:
        """The patch that belongs to this version."""
        return Path(__file__).with_name(f"horovod-{self.version}.patch")


@dataclass(frozen=True)
class Framework:
    """A framework that is installed here."""

    module: str
    version: str
    cuda: str | None  # the version it was built for; None: a CPU build


def read_pins(path: Path = ROOT / "pyproject.toml") -> Pins:
    """Reads version, checksum and requirements, which are pinned there and nowhere else."""
    project = tomllib.loads(path.read_text(encoding="utf-8"))
    table = project["tool"]["twinquant"]["horovod"]
    return Pins(table["version"], table["sha256"], tuple(project["project"]["optional-dependencies"]["horovod"]))


def find_frameworks(environment: Mapping[str, str]) -> list[Framework]:
    """The frameworks to build for: those installed, but not what HOROVOD_WITHOUT_... excludes; one is needed.

    Importing them takes many seconds, so the small modules that each was given at its own build are read instead.
    """
    found = []
    torch, tensorflow = importlib.util.find_spec("torch"), importlib.util.find_spec("tensorflow")
    if torch and torch.origin and environment.get("HOROVOD_WITHOUT_PYTORCH") != "1":
        about = runpy.run_path(str(Path(torch.origin).with_name("version.py")))
        found.append(Framework("torch", about["__version__"], about["cuda"]))
    if tensorflow and tensorflow.origin and environment.get("HOROVOD_WITHOUT_TENSORFLOW") != "1":
        written = Path(tensorflow.origin).with_name("python") / "platform" / "build_info.py"
        about = runpy.run_path(str(written))["build_info"]
        # The module comes with one of several packages.
        version = importlib.metadata.version(importlib.metadata.packages_distributions()["tensorflow"][0])
        found.append(Framework("tensorflow", version, about.get("cuda_version") if about["is_cuda_build"] else None))
    if not found:
        raise UserError(f"Horovod needs torch or tensorflow, and neither is installed in {sys.prefix}: make venv first")
    return found


def find_nvcc(environment: Mapping[str, str]) -> Path | None:
    """The CUDA compiler, where there is one."""
    homes = [environment[name] for name in ("HOROVOD_CUDA_HOME", "CUDA_HOME", "CUDA_PATH") if environment.get(name)]
    found = [Path(home, "bin/nvcc") for home in homes if Path(home, "bin/nvcc").is_file()]
    on_path = shutil.which("nvcc", path=environment.get("PATH"))
    return found[0] if found else Path(on_path) if on_path else None


def find_nccl(environment: Mapping[str, str], nvcc: Path | None) -> Path | None:
    """NCCL's header, where the build would find it. TensorFlow's wheel holds a copy, but no library to go with it."""
    folders = [Path(environment["HOROVOD_NCCL_INCLUDE"])] if environment.get("HOROVOD_NCCL_INCLUDE") else []
    homes = [environment[name] for name in ("HOROVOD_NCCL_HOME", "CUDA_HOME", "CUDA_PATH") if environment.get(name)]
    homes += [str(nvcc.resolve().parents[1])] if nvcc else []
    folders += [Path(home, "include") for home in [*homes, "/usr", "/usr/local", "/usr/local/cuda"]]
    return next((folder / "nccl.h" for folder in folders if (folder / "nccl.h").is_file()), None)


def choose_operations(
    frameworks: Sequence[Framework], environment: Mapping[str, str], nvcc: Path | None, nccl: Path | None
) -> tuple[dict[str, str], str]:
    """Whether tensors on GPUs travel through NCCL: the variables that say so to the build, and a line for the user.

    All frameworks must be CUDA builds: upstream's build ends where torch is not, and a wheel serves both frameworks.
    None may be TensorFlow: Horovod calls stream_executor::gpu::AsGpuStreamValue for the stream of a GPU tensor, and
    TensorFlow 2.21 has no such function any more, so the library would not load.
    """
    chosen = {name: value for name, value in environment.items() if name.startswith("HOROVOD_GPU")}
    cpu_builds = [f"{framework.module} {framework.version}" for framework in frameworks if not framework.cuda]
    if chosen:
        return {}, "operations: as set, " + " ".join(f"{name}={value}" for name, value in sorted(chosen.items()))
    if cpu_builds:
        return {}, f"operations: CPU (MPI); built without CUDA: {', '.join(cpu_builds)}"
    if nvcc is None:
        return {}, "operations: CPU (MPI); there is no nvcc"
    if nccl is None:
        return {}, "operations: CPU (MPI); there is no nccl.h (HOROVOD_NCCL_HOME names its folder)"
    if any(framework.module == "tensorflow" for framework in frameworks):
        return {}, "operations: CPU (MPI); NCCL is for PyTorch alone (HOROVOD_WITHOUT_TENSORFLOW=1)"
    return {"HOROVOD_GPU_OPERATIONS": "NCCL"}, f"operations: GPU (NCCL), with {nvcc} and {nccl}"


def build_variables(
    frameworks: Sequence[Framework], environment: Mapping[str, str], operations: Mapping[str, str]
) -> dict[str, str]:
    """All that the environment tells the build: our choices, and the user's, which win."""
    modules = {framework.module for framework in frameworks}
    ours = {
        "HOROVOD_WITH_MPI": "1",
        "HOROVOD_WITHOUT_GLOO": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_CPU_OPERATIONS": "MPI",
        f"HOROVOD_{'WITH' if 'torch' in modules else 'WITHOUT'}_PYTORCH": "1",
        f"HOROVOD_{'WITH' if 'tensorflow' in modules else 'WITHOUT'}_TENSORFLOW": "1",
        **operations,
        # Without it the installed files take 90 MB.
        "LDFLAGS": f"{environment.get('LDFLAGS', '')} -Wl,--strip-debug".strip(),
    }
    others = ("CC", "CXX", "CFLAGS", "CXXFLAGS")
    users = {name: value for name, value in environment.items() if name.startswith("HOROVOD_") or name in others}
    for name in users:
        # HOROVOD_WITHOUT_MPI=1 must not meet our HOROVOD_WITH_MPI=1.
        opposite = name.replace("_WITHOUT_", "_WITH_") if "_WITHOUT_" in name else name.replace("_WITH_", "_WITHOUT_")
        ours.pop(opposite, None)
    return ours | users


def ingredients(
    pins: Pins,
    frameworks: Sequence[Framework],
    variables: Mapping[str, str],
    mpi: Sequence[str],
    cuda: Sequence[str],
) -> dict[str, object]:
    """Everything that shapes a wheel; `cuda` names what a CUDA build takes from this machine."""
    return {
        "horovod": [pins.version, pins.sha256, sha256_of_file(pins.patch)],
        "python": sysconfig.get_config_var("SOABI"),
        "frameworks": [[framework.module, framework.version, framework.cuda] for framework in frameworks],
        "mpi": list(mpi),
        "cuda": list(cuda),
        "machine": [platform.machine(), *platform.libc_ver()],
        "cpu": sorted(ARCHITECTURE_FLAGS & cpu_flags(Path("/proc/cpuinfo"))),
        "variables": dict(sorted(variables.items())),
    }


def cpu_flags(path: Path) -> set[str]:
    """What the first CPU can do, in Linux's words; nothing where the file or the line is absent."""
    text = path.read_text() if path.is_file() else ""
    match = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return set(match[1].split()) if match else set()


def key_of(parts: Mapping[str, object]) -> str:
    """A name for a wheel of these ingredients."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
