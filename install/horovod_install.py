"""Installs Horovod into the interpreter that runs this: `python -m install.horovod_install`, or `make horovod`.

Horovod is published as source only, and its last release needs a small patch. So a wheel is built for the frameworks
found here and kept in a cache, by everything that shapes it: another clone on this machine then installs in seconds.
The end is a sum over two processes under mpirun in each framework; only after it is Horovod taken for installed.
"""

import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from install.horovod_ingredients import (
    Pins,
    build_variables,
    choose_operations,
    find_frameworks,
    find_nccl,
    find_nvcc,
    ingredients,
    key_of,
    read_pins,
)
from twinquant.errors import UserError
from twinquant.files import atomic_folder, make_folder, sha256_of_file
from twinquant.main import run_main

CHECK = Path(__file__).with_name("allreduce_check.py")
READY = Path(sys.prefix, "horovod-ready")  # holds the key of what is installed
LOG = Path(sys.prefix, "horovod-install.log")
CHECKSUM_FILE = "wheel.sha256"
CHECK_SECONDS = 180
KILOBYTES_PER_JOB = 2_500_000  # what the largest file takes to compile

# What each program is for is known to Debian by other names. pkg-config is not among them: the build does not call it.
# The compiler's wrapper, mpicxx, comes with openmpi-bin, which is installed first; the headers that it names do not.
HEADER = "mpi.h"
MPI_PACKAGES = {"mpirun": "openmpi-bin", HEADER: "libopenmpi-dev"}
BUILD_PACKAGES = {"cmake": "cmake", "g++": "g++", "make": "make"}


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where wheels are kept."""
    base = Path(environment.get("XDG_CACHE_HOME", ""))
    # The standard for this variable says that a relative path is to be ignored.
    return (base if base.is_absolute() else Path.home() / ".cache") / "twinquant" / "horovod"


def cached_wheel(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The wheel kept in `folder`; None where there is none, or one that is not as it was when it was put there."""
    wheels = sorted(folder.glob("*.whl"))
    record = folder / CHECKSUM_FILE
    if not wheels:
        return None
    if record.is_file() and record.read_text(encoding="utf-8").strip() == sha256_of_file(wheels[0]):
        return wheels[0]
    say(f"{wheels[0]} does not have the checksum of {record.name} beside it, and is built anew")
    return None


def store_wheel(wheel: Path, folder: Path, parts: Mapping[str, object]) -> Path:
    """Puts a wheel into the cache, with its checksum and what it was made of; whole or not at all."""
    make_folder(folder.parent)
    with atomic_folder(folder) as temporary:
        shutil.copyfile(wheel, temporary / wheel.name)
        (temporary / CHECKSUM_FILE).write_text(sha256_of_file(wheel) + "\n", encoding="utf-8")
        (temporary / "made-of.json").write_text(json.dumps(parts, indent=4) + "\n", encoding="utf-8")
    return folder / wheel.name


def read_patch(text: str) -> dict[str, list[tuple[int, list[str], list[str]]]]:
    """A unified diff: by file, the first line's number, old lines and new lines of each place. Prose is passed over."""
    files: dict[str, list[tuple[int, list[str], list[str]]]] = {}
    places: list[tuple[int, list[str], list[str]]] = []
    for line in text.splitlines(keepends=True):
        if line.startswith("+++ "):
            places = files.setdefault(line.split()[1].partition("/")[2], [])
        elif match := re.match(r"@@ -(\d+)", line):
            places.append((int(match[1]), [], []))
        elif places and not line.startswith("--- "):
            if line[0] in " -":
                places[-1][1].append(line[1:])
            if line[0] in " +":
                places[-1][2].append(line[1:])
    return files


def apply_patch(patch: Path, folder: Path) -> None:
    """Changes the files under `folder`; UserError where the old lines are not exactly there. Needs no program."""
    for name, places in read_patch(patch.read_text(encoding="utf-8")).items():
        path = folder / name
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
        # From the last place to the first, so that the line numbers ahead stay right.
        for start, old, new in reversed(places):
            where = slice(start - 1, start - 1 + len(old))
            if lines[where] != old:
                raise UserError(f"{patch.name} does not fit {path} at line {start}: is it of another version?")
            lines[where] = new
        path.write_text("".join(lines), encoding="utf-8")


def check_source(archive: Path, sha256: str) -> None:
    """Raises UserError for a source distribution other than the pinned one."""
    found = sha256_of_file(archive)
    if found != sha256:
        raise UserError(f"{archive.name} has the sha256 {found}, pyproject.toml expects {sha256}: nothing was built")


def run_logged(command: Sequence[str], doing: str, environment: Mapping[str, str] | None = None) -> None:
    """Runs a command with its output in the log; UserError naming the log and the last line where it fails."""
    with open(LOG, "ab") as log:
        log.write(f"\n$ {' '.join(command)}\n".encode())
        log.flush()
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            code = process.wait()
        except BaseException:
            # pip's children too: compilers would go on for minutes.
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
    if code:
        last = LOG.read_text(errors="replace").strip().splitlines()[-1]
        raise UserError(f"{doing} failed with exit code {code} ({last}); the whole output is in {LOG}")


def pip(*arguments: str) -> list[str]:
    """A command of this interpreter's pip."""
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]


def is_present(program: str) -> bool:
    """Whether a program is on PATH; for HEADER, whether the MPI compiler finds it."""
    if program != HEADER:
        return shutil.which(program) is not None
    if shutil.which("mpicxx") is None:
        return False
    folders = subprocess.run(["mpicxx", "--showme:incdirs"], capture_output=True, text=True).stdout.split()
    return any(Path(folder, HEADER).is_file() for folder in folders)


def require_programs(packages: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Sees to it that programs are there: as root on Debian and its kin by installing, else by saying what to do."""
    missing = [program for program in packages if not is_present(program)]
    if not missing:
        return
    names = sorted({packages[program] for program in missing})
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise UserError(
            f"Horovod needs {', '.join(missing)}: install Open MPI and a C++ compiler with cmake "
            f"(on Debian or Ubuntu, as root: apt-get install {' '.join(names)}) and run this again"
        )
    say(f"{', '.join(missing)} missing: installing {' '.join(names)} with apt-get")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    run_logged(["apt-get", "update"], "apt-get update", quiet)
    options = ["--yes", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"]
    run_logged(["apt-get", "install", *options, *names], f"apt-get install {' '.join(names)}", quiet)
    if still := [program for program in missing if not is_present(program)]:
        raise UserError(f"{' '.join(names)} is installed, but {', '.join(still)} is still not found")


def find_mpi() -> list[str]:
    """Open MPI's version, and its mpirun, for the wheel carries the library's path; UserError for another MPI."""
    output = subprocess.run(["mpirun", "--version"], capture_output=True, text=True).stdout
    match = re.search(r"\(Open MPI\) (\S+)", output)
    if not match:
        raise UserError(f"{shutil.which('mpirun')} is not Open MPI's (it calls itself {output.splitlines()[:1]})")
    return [match[1], os.path.realpath(str(shutil.which("mpirun")))]


def build_jobs(cores: int, memory: str) -> int:
    """How many files to compile at a time, by the cores and by Linux's account of the memory; upstream takes 8."""
    match = re.search(r"^MemAvailable:\s*(\d+) kB", memory, re.MULTILINE)
    return max(1, min(cores, int(match[1]) // KILOBYTES_PER_JOB)) if match else cores


def build_wheel(pins: Pins, variables: Mapping[str, str], folder: Path, say: Callable[[str], None]) -> Path:
    """Downloads, checks, patches and builds in the empty `folder`; returns the wheel."""
    require_programs(MPI_PACKAGES | BUILD_PACKAGES, say)
    name = f"horovod-{pins.version}"
    say(f"downloading the source of {name}")
    wanted = folder / "source.txt"
    # With the sum pip refuses another file before it runs anything from it.
    wanted.write_text(f"horovod=={pins.version} --hash=sha256:{pins.sha256}\n", encoding="utf-8")
    options = ["--no-binary", "horovod", "--no-deps", "--no-build-isolation", "--require-hashes"]
    run_logged(pip("download", *options, "--dest", str(folder), "-r", str(wanted)), f"the download of {name}")
    archive = folder / f"{name}.tar.gz"
    check_source(archive, pins.sha256)
    with tarfile.open(archive) as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
        tar.extractall(folder)
    apply_patch(pins.patch, folder / name)
    jobs = build_jobs(len(os.sched_getaffinity(0)), Path("/proc/meminfo").read_text())
    say(f"building, {jobs} file(s) at a time; six minutes on two cores, and {LOG} tells how far it is")
    # make's own variables name a job server that pip's children do not have.
    environment = {key: value for key, value in os.environ.items() if key not in ("MFLAGS", "MAKELEVEL")}
    environment |= {**variables, "MAKEFLAGS": f"-j{jobs}"}
    command = pip("wheel", "--verbose", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder / "wheel"))
    run_logged([*command, str(folder / name)], f"the build of {name}", environment)
    return next((folder / "wheel").glob("horovod-*.whl"))


def check_allreduce(module: str) -> None:
    """Sums over two processes under mpirun in one framework; UserError where that does not come out right, or hangs."""
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    places = ["-H", "localhost:2", "--oversubscribe", "--bind-to", "none", "--map-by", "slot"]
    network = ["--mca", "pml", "ob1", "--mca", "btl", "^openib"]
    limit = ["--timeout", str(CHECK_SECONDS)]
    command = ["mpirun", "-np", "2", *root, *places, *network, *limit, sys.executable, str(CHECK), module]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=CHECK_SECONDS + 30)  # for an mpirun that hangs itself
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise UserError(f"Horovod's sum over two processes in {module} hangs under mpirun") from error
        raise
    if process.returncode:
        with open(LOG, "a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(command)}\n{output}")
        raise UserError(
            f"Horovod's sum over two processes in {module} failed under mpirun with exit code {process.returncode}; "
            f"the output is at the end of {LOG}"
        )


def install(environment: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Does what the head of this file says; quick where the same Horovod is already installed."""
    pins, frameworks = read_pins(), find_frameworks(environment)
    require_programs({"mpirun": MPI_PACKAGES["mpirun"]}, say)
    nvcc = find_nvcc(environment)
    nccl = find_nccl(environment, nvcc)
    operations, line = choose_operations(frameworks, environment, nvcc, nccl)
    variables = build_variables(frameworks, environment, operations)
    cuda: list[str] = []
    if nvcc and any(framework.cuda for framework in frameworks):
        cuda = [subprocess.run([nvcc, "--version"], capture_output=True, text=True).stdout]
        cuda += [sha256_of_file(nccl)] if nccl else []
    parts = ingredients(pins, frameworks, variables, find_mpi(), cuda)
    key = key_of(parts)
    names = ", ".join(f"{framework.module} {framework.version}" for framework in frameworks)
    if READY.is_file() and READY.read_text(encoding="utf-8") == key and is_installed(pins.version):
        say(f"{pins.version} for {names} is installed")
        return
    READY.unlink(missing_ok=True)
    LOG.unlink(missing_ok=True)
    say(f"{pins.version} for {names}; {line}")
    run_logged(pip("install", *pins.requirements), "the installation of what Horovod needs")
    folder = cache_folder(environment) / key
    wheel = cached_wheel(folder, say)
    if wheel is None:
        with tempfile.TemporaryDirectory(prefix="twinquant-horovod-") as temporary:
            wheel = store_wheel(build_wheel(pins, variables, Path(temporary), say), folder, parts)
    say(f"installing {wheel}")
    run_logged(pip("install", "--no-deps", "--force-reinstall", str(wheel)), f"the installation of {wheel.name}")
    for framework in frameworks:
        say(f"a sum over two processes in {framework.module}")
        check_allreduce(framework.module)
    READY.write_text(key, encoding="utf-8")


def is_installed(version: str) -> bool:
    """Whether this interpreter has Horovod of that version."""
    try:
        return importlib.metadata.version("horovod") == version
    except importlib.metadata.PackageNotFoundError:
        return False


def main(arguments: Sequence[str]) -> None:
    """Takes no arguments."""
    if arguments:
        raise UserError(f"no arguments are taken, found {' '.join(arguments)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was begun is ended and removed
    install(os.environ, lambda line: print(f"horovod: {line}", flush=True))


if __name__ == "__main__":
    sys.exit(run_main(main, "horovod"))
