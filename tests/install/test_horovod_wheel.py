"""The installation of Horovod, up to its build; and what is installed, where it is."""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from install import horovod_ingredients, horovod_install
from install.horovod_ingredients import Framework, Pins
from twinquant.errors import UserError

PINS = horovod_ingredients.read_pins()
TORCH = Framework("torch", "2.13.0+cpu", None)
TORCH_GPU = Framework("torch", "2.13.0", "13.0")
TENSORFLOW_GPU = Framework("tensorflow", "2.21.0", "12.5.1")
NVCC, NCCL = Path("/cuda/bin/nvcc"), Path("/usr/include/nccl.h")
MPI = ["4.1.4", "/usr/bin/orterun"]


def quiet(line: str) -> None:
    """Nobody listens."""


def key(pins=PINS, frameworks=(TORCH,), environment=None, operations=None, mpi=MPI, cuda=()) -> str:
    """The key of a wheel; each test changes one thing."""
    variables = horovod_ingredients.build_variables(frameworks, environment or {}, operations or {})
    return horovod_ingredients.key_of(horovod_ingredients.ingredients(pins, frameworks, variables, mpi, cuda))


@pytest.mark.parametrize(
    "change",
    [
        {"pins": Pins(PINS.version, "0" * 64, PINS.requirements)},
        {"frameworks": [Framework("torch", "2.13.1+cpu", None)]},
        {"frameworks": [Framework("torch", "2.13.0+cpu", "13.0")]},
        {"frameworks": [TORCH, TENSORFLOW_GPU]},
        {"mpi": ["4.1.6", MPI[1]]},
        {"mpi": [MPI[0], "/opt/openmpi/bin/orterun"]},
        {"operations": {"HOROVOD_GPU_OPERATIONS": "NCCL"}},
        {"environment": {"HOROVOD_CPU_OPERATIONS": "CCL"}},
        {"environment": {"CXXFLAGS": "-O1"}},
        {"cuda": ["release 13.0"]},
    ],
    ids=lambda change: " ".join(change),
)
def test_every_ingredient_changes_the_key(change):
    assert key(**change) != key()
    assert key(**change) == key(**change)


def test_patch_python_machine_and_cpu_change_the_key(tmp_path, monkeypatch):
    before = key()
    assert key(environment={"HOME": "/elsewhere", "LANG": "C"}) == before
    with monkeypatch.context() as patch:
        patch.setattr(horovod_ingredients, "cpu_flags", lambda path: {"sse2"})
        assert key() != before
    with monkeypatch.context() as patch:
        patch.setattr(horovod_ingredients.platform, "machine", lambda: "riscv64")
        assert key() != before
    with monkeypatch.context() as patch:
        patch.setattr(horovod_ingredients.sysconfig, "get_config_var", lambda name: "cpython-399")
        assert key() != before
    other = tmp_path / "other.patch"
    other.write_text(PINS.patch.read_text() + "\n")
    monkeypatch.setattr(Pins, "patch", other)
    assert key() != before


def test_cpu_flags_are_read_from_linux(tmp_path):
    (tmp_path / "cpuinfo").write_text("model name\t: A\nflags\t\t: fpu avx fma\n\nmodel name\t: A\nflags\t\t: sse\n")
    assert horovod_ingredients.cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx", "fma"}
    assert horovod_ingredients.cpu_flags(tmp_path / "absent") == set()


@pytest.mark.parametrize(
    ("frameworks", "environment", "nvcc", "nccl", "variables", "says"),
    [
        ([TORCH_GPU], {}, NVCC, NCCL, {"HOROVOD_GPU_OPERATIONS": "NCCL"}, "GPU (NCCL), with /cuda/bin"),
        ([TORCH_GPU, TENSORFLOW_GPU], {}, NVCC, NCCL, {}, "CPU (MPI); NCCL is for PyTorch alone"),
        ([TORCH_GPU], {"HOROVOD_GPU_OPERATIONS": ""}, NVCC, NCCL, {}, "as set, HOROVOD_GPU_OPERATIONS="),
        ([TORCH_GPU], {}, None, NCCL, {}, "CPU (MPI); there is no nvcc"),
        ([TORCH_GPU], {}, NVCC, None, {}, "CPU (MPI); there is no nccl.h"),
        # Upstream's build refuses GPU operations next to a torch without CUDA.
        ([TORCH, TENSORFLOW_GPU], {}, NVCC, NCCL, {}, "CPU (MPI); built without CUDA: torch 2.13.0+cpu"),
        ([TORCH_GPU], {"HOROVOD_GPU_OPERATIONS": "MPI"}, NVCC, NCCL, {}, "as set, HOROVOD_GPU_OPERATIONS=MPI"),
        # Both this one and HOROVOD_GPU_OPERATIONS would be refused.
        ([TORCH_GPU], {"HOROVOD_GPU_ALLREDUCE": "NCCL"}, NVCC, NCCL, {}, "as set, HOROVOD_GPU_ALLREDUCE=NCCL"),
    ],
)
def test_gpu_operations_are_chosen_where_all_is_there(frameworks, environment, nvcc, nccl, variables, says):
    chosen, line = horovod_ingredients.choose_operations(frameworks, environment, nvcc, nccl)
    assert chosen == variables
    assert says in line


def test_cuda_and_nccl_are_found_where_the_environment_says(tmp_path):
    for name in ("cuda/bin/nvcc", "nccl/include/nccl.h"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    nvcc = horovod_ingredients.find_nvcc({"CUDA_HOME": str(tmp_path / "cuda"), "PATH": ""})
    assert nvcc == tmp_path / "cuda/bin/nvcc"
    nccl = horovod_ingredients.find_nccl({"HOROVOD_NCCL_HOME": str(tmp_path / "nccl")}, nvcc)
    assert nccl == tmp_path / "nccl/include/nccl.h"
    assert horovod_ingredients.find_nvcc({"CUDA_HOME": str(tmp_path), "PATH": str(tmp_path)}) is None


def test_variables_of_the_user_win():
    environment = {"HOROVOD_WITH_GLOO": "1", "HOROVOD_CPU_OPERATIONS": "GLOO", "LDFLAGS": "-L/x", "HOME": "/root"}
    variables = horovod_ingredients.build_variables([TORCH], environment, {"HOROVOD_GPU_OPERATIONS": "NCCL"})
    assert variables == {
        "HOROVOD_WITH_MPI": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITH_PYTORCH": "1",
        "HOROVOD_WITHOUT_TENSORFLOW": "1",
        "HOROVOD_GPU_OPERATIONS": "NCCL",
        "HOROVOD_WITH_GLOO": "1",
        "HOROVOD_CPU_OPERATIONS": "GLOO",
        "LDFLAGS": "-L/x -Wl,--strip-debug",
    }


def test_without_a_framework_there_is_one_sentence(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs torch or tensorflow, and neither is installed"):
        horovod_ingredients.find_frameworks({})


def test_installed_frameworks_are_found_without_importing_them():
    excluded = {"HOROVOD_WITHOUT_TENSORFLOW": "1"}
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    (found,) = horovod_ingredients.find_frameworks(excluded)
    import torch

    assert found == Framework("torch", str(torch.__version__), torch.version.cuda)


@pytest.mark.parametrize("apt_get", [None, "/usr/bin/apt-get"])
def test_missing_programs_are_named_where_they_cannot_be_installed(monkeypatch, apt_get):
    monkeypatch.setattr(os, "geteuid", lambda: 1000 if apt_get else 0)
    monkeypatch.setattr(shutil, "which", lambda program: apt_get if program == "apt-get" else None)
    with pytest.raises(UserError, match=r"needs mpirun, mpi.h: .*apt-get install libopenmpi-dev openmpi-bin\)"):
        horovod_install.require_programs(horovod_install.MPI_PACKAGES, quiet)


def test_root_on_debian_installs_only_what_is_missing(monkeypatch):
    present, commands = {"apt-get", "mpirun", "g++", "make"}, []

    def run(command, doing, environment):
        commands.append(command)
        assert environment["DEBIAN_FRONTEND"] == "noninteractive"
        if "install" in command:
            present.update({"mpi.h", "cmake"})

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}" if program in present else None)
    monkeypatch.setattr(horovod_install, "is_present", lambda program: program in present)
    monkeypatch.setattr(horovod_install, "run_logged", run)
    horovod_install.require_programs(horovod_install.MPI_PACKAGES | horovod_install.BUILD_PACKAGES, quiet)
    assert [command[:2] for command in commands] == [["apt-get", "update"], ["apt-get", "install"]]
    assert commands[1][-2:] == ["cmake", "libopenmpi-dev"]


@pytest.mark.parametrize("header", [True, False], ids=["with-header", "without"])
def test_a_compiler_for_mpi_without_its_headers_does_not_count(monkeypatch, tmp_path, header):
    """As Debian's openmpi-bin leaves it alone: mpicxx is there, and the folder that it names is not."""
    wrapper, includes = tmp_path / "mpicxx", tmp_path / "include"
    wrapper.write_text(f"#!/bin/sh\necho {includes} {includes}/openmpi\n")
    wrapper.chmod(0o755)
    if header:
        includes.mkdir()
        (includes / "mpi.h").touch()
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert horovod_install.is_present("mpi.h") is header
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert not horovod_install.is_present("mpi.h")


def test_another_source_is_refused(tmp_path):
    archive = tmp_path / "horovod-0.28.1.tar.gz"
    archive.write_bytes(b"other")
    with pytest.raises(UserError, match=f"sha256 [0-9a-f]{{64}}, pyproject.toml expects {PINS.sha256}: nothing was bu"):
        horovod_install.check_source(archive, PINS.sha256)


def test_the_cache_gives_back_what_was_stored(tmp_path):
    wheel, folder = tmp_path / "horovod-0.28.1-py3-none-any.whl", tmp_path / "cache" / "0123"
    wheel.write_bytes(b"wheel")
    assert horovod_install.cached_wheel(folder, quiet) is None
    stored = horovod_install.store_wheel(wheel, folder, {"python": "cpython-311"})
    assert horovod_install.cached_wheel(folder, quiet) == stored == folder / wheel.name
    assert json.loads((folder / "made-of.json").read_text()) == {"python": "cpython-311"}
    assert os.listdir(tmp_path / "cache") == ["0123"]


@pytest.mark.parametrize("damage", ["wheel", "record"])
def test_a_damaged_wheel_in_the_cache_is_not_used_and_replaced(tmp_path, damage):
    wheel, folder, lines = tmp_path / "horovod-0.28.1-py3-none-any.whl", tmp_path / "cache" / "0123", []
    wheel.write_bytes(b"wheel")
    stored = horovod_install.store_wheel(wheel, folder, {})
    if damage == "wheel":
        stored.write_bytes(b"whee")
    else:
        (folder / horovod_install.CHECKSUM_FILE).unlink()
    assert horovod_install.cached_wheel(folder, lines.append) is None
    assert len(lines) == 1 and str(stored) in lines[0] and "built anew" in lines[0]
    assert horovod_install.cached_wheel(horovod_install.store_wheel(wheel, folder, {}).parent, quiet) == stored


def test_cache_folder(tmp_path):
    assert horovod_install.cache_folder({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path / "twinquant/horovod"
    for environment in ({}, {"XDG_CACHE_HOME": ""}, {"XDG_CACHE_HOME": "relative"}):
        assert horovod_install.cache_folder(environment) == Path.home() / ".cache/twinquant/horovod"


def test_the_patch_changes_one_line_in_each_of_two_files():
    files = horovod_install.read_patch(PINS.patch.read_text())
    assert list(files) == ["horovod/tensorflow/xla_mpi_ops.cc", "horovod/torch/CMakeLists.txt"]
    changed = []
    for ((_, old, new),) in files.values():
        assert len(old) == len(new) == 7
        changed += [pair for pair in zip(old, new, strict=True) if pair[0] != pair[1]]
    assert [old for old, _ in changed] == ["#if TENSORFLOW_VERSION >= 2006000000\n", "    set(CMAKE_CXX_STANDARD 14)\n"]
    assert changed[0][1].startswith("#if TENSORFLOW_VERSION >= 2006000000 && HAVE_GPU && ")
    assert changed[1][1] == "    set(CMAKE_CXX_STANDARD 17)\n"


def test_a_patch_is_applied_only_where_it_fits(tmp_path):
    patch = tmp_path / "x.patch"
    patch.write_text("Why.\n--- a/f\n+++ b/f\n@@ -2,2 +2,3 @@\n two\n-three\n+3\n+3.5\n@@ -5,1 +6,1 @@\n-five\n+5\n")
    target = tmp_path / "f"
    target.write_text("one\ntwo\nthree\nfour\nfive\n")
    horovod_install.apply_patch(patch, tmp_path)
    assert target.read_text() == "one\ntwo\n3\n3.5\nfour\n5\n"
    with pytest.raises(UserError, match="x.patch does not fit .*f at line 5"):
        horovod_install.apply_patch(patch, tmp_path)
    assert target.read_text() == "one\ntwo\n3\n3.5\nfour\n5\n"


def test_a_failing_command_names_the_log_and_the_last_line(tmp_path, monkeypatch):
    monkeypatch.setattr(horovod_install, "LOG", tmp_path / "log")
    with pytest.raises(UserError, match=rf"the build failed with exit code 3 \(second\); .* is in {tmp_path}/log"):
        horovod_install.run_logged(["sh", "-c", "echo first; echo second >&2; exit 3"], "the build")
    assert "first\nsecond\n" in (tmp_path / "log").read_text()


def test_an_interrupted_installation_leaves_no_process_behind(tmp_path):
    program = (
        "import pathlib, sys; from install import horovod_install; horovod_install.LOG = pathlib.Path('log');"
        "horovod_install.install = lambda *_: horovod_install.run_logged("
        "['sh', '-c', 'sleep 987 & echo $!; wait'], 'it');"
        "horovod_install.main([])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(horovod_install.__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=environment) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "log").is_file() or (tmp_path / "log").read_text().count("\n") < 3:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.terminate()
        assert process.wait(60) == 143
    sleeper = Path("/proc", (tmp_path / "log").read_text().splitlines()[2], "cmdline")
    deadline = time.monotonic() + 20
    # The system takes it away a moment later, perhaps while the file is read.
    with contextlib.suppress(OSError):
        while b"987" in sleeper.read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_jobs_are_limited_by_cores_and_memory():
    assert horovod_install.build_jobs(2, "MemTotal: 1 kB\nMemAvailable:   64000000 kB\n") == 2
    assert horovod_install.build_jobs(16, "MemAvailable:   8000000 kB\n") == 3
    assert horovod_install.build_jobs(16, "MemAvailable:   1000000 kB\n") == 1


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="there is no mpirun")
@pytest.mark.parametrize("module", ["torch", "tensorflow"])
def test_two_processes_under_mpirun_come_to_the_sum(module):
    if importlib.util.find_spec("horovod") is None or importlib.util.find_spec(module) is None:
        pytest.skip(f"horovod or {module} is not installed")
    horovod_install.check_allreduce(module)


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="there is no mpirun")
def test_a_wrong_sum_is_one_sentence_and_its_output_is_kept(tmp_path, monkeypatch):
    script = tmp_path / "check.py"
    script.write_text("import sys; sys.exit('1 processes (expected 2)')")
    monkeypatch.setattr(horovod_install, "CHECK", script)
    monkeypatch.setattr(horovod_install, "LOG", tmp_path / "log")
    with pytest.raises(UserError, match=f"two processes in torch failed .* exit code 1; .* at the end of {tmp_path}"):
        horovod_install.check_allreduce("torch")
    assert "1 processes (expected 2)" in (tmp_path / "log").read_text()
