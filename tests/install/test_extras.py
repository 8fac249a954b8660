"""Each extra works alone: real commands in processes that cannot import what the extra does not bring.

`make shapes` does the same with real installations; here the packages are hidden, which takes seconds.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from missing_packages import HIDDEN, MISSING

from install.shapes import JOBS, write_job

ROOT = Path(__file__).resolve().parents[2]
# The modules that an extra, and what it depends on, brings to import.
MODULES = {
    "tensorflow": {"tensorflow", "keras"},
    "pytorch": {"torch"},
    "export": {"onnx", "onnxruntime", "matplotlib"},
}
HIDE = """
import runpy, sys
for name in {hidden!r}:
    sys.modules[name] = None  # found by nobody, as if it were not installed
sys.argv = {words!r}
sys.path.insert(0, {root!r})
if sys.argv[0] == "-m":
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
else:
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def call(words: list[str], there: set[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """`python <words>` where only some of the optional packages are there."""
    if words[0] != "-m":
        words = [str(ROOT / words[0]), *words[1:]]
    code = HIDE.format(hidden=sorted(HIDDEN - there), words=words, root=str(ROOT))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and the data of a job."""
    folder = tmp_path_factory.mktemp("job")
    write_job(folder)
    return folder


@pytest.mark.parametrize("extra", ["tensorflow", "pytorch", "export"])
def test_an_extra_alone(extra: str, job: Path, tmp_path: Path) -> None:
    for module in MODULES[extra]:
        pytest.importorskip(module)
    for words in JOBS[extra]:
        done = call([word.format(job=job, out=tmp_path) for word in words], MODULES[extra], tmp_path)
        assert done.returncode == 0, done.stderr
    if extra != "export":
        ranges = json.loads((tmp_path / "quantized/calibration.json").read_text())["quantizers"]
        assert len(ranges) > 10 and json.loads((tmp_path / "quantized/predictions.json").read_text())


@pytest.mark.parametrize(("there", "words", "sentence"), MISSING.values(), ids=MISSING)
def test_what_is_missing(there: str, words: list[str], sentence: str, job: Path, tmp_path: Path) -> None:
    """One sentence with the command that installs it; exit code 2; before anything is written."""
    extra, _, but = there.partition(" but ")
    present = MODULES.get(extra, set()) - {but}
    for module in present:
        pytest.importorskip(module)
    environment = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"} if "--horovod" in words else {}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        done = call([word.format(job=job) for word in words], present, tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    said = done.stderr.splitlines()[-1].partition("error: ")[2]
    # A package that is hidden is missed in other words than one that is not there.
    said = re.sub(r"\(No module named 'horovod.*?\)(?=;)", "(No module named 'horovod')", said)
    assert said == sentence.format(job=job)
    assert not list(tmp_path.iterdir())


def test_every_package_is_installed() -> None:
    """What has an __init__.py, but tests and the programs of the Makefile; and both scripts."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    tracked = subprocess.run(["git", "ls-files", "*/__init__.py"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("this is no git checkout")
    folders = {Path(line).parent.as_posix().replace("/", ".") for line in tracked.stdout.splitlines()}
    assert set(listed["packages"]) == {each for each in folders if not each.startswith(("tests", "install"))}
    assert listed["py-modules"] == sorted(path.stem for path in ROOT.glob("run_*.py"))


def test_the_extras_are_those_of_pyproject() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(MODULES) <= set(extras) and set(JOBS) <= {*extras, "tensorflow,pytorch"}
