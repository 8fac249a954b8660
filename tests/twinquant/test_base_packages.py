"""A Python without the base packages: one sentence that names them and what to type, from every command."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from twinquant.base_packages import BASE_PACKAGES, OLDEST_PYTHON, require_base_packages

ROOT = Path(__file__).parents[2]
ALL = ", ".join(BASE_PACKAGES.values())


def bare_python(*arguments: str, root: Path = ROOT, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run with an interpreter that sees the project and the standard library alone."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-S", *arguments]
    return subprocess.run(command, cwd=cwd or root, env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The project's files in a folder with an environment beside them, and not that of the interpreter."""
    for pattern in ("run_*.py", "twinquant/*.py", "export/__*.py"):
        for path in ROOT.glob(pattern):
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").touch()
    return tmp_path


COMMANDS = {
    "run_squad.py": ("run_squad.py", "--help"),
    "run_glue.py": ("run_glue.py", "--do_train"),
    "python -m export": ("-m", "export", "onnx", "--help"),
    "nlp-train": ("-c", "from twinquant.nlp_architect import main_train; raise SystemExit(main_train(['--help']))"),
    "nlp-inference": ("-c", "from twinquant.nlp_architect import main_inference as m; raise SystemExit(m([]))"),
}
USES = {
    "run_squad.py": ".venv/bin/python run_squad.py",
    "run_glue.py": ".venv/bin/python run_glue.py",
    "python -m export": ".venv/bin/python -m export",
    "nlp-train": ".venv/bin/nlp-train",
    "nlp-inference": ".venv/bin/nlp-inference",
}


@pytest.mark.parametrize("program", COMMANDS)
def test_one_sentence_and_what_to_type(clone, program):
    ended = bare_python(*COMMANDS[program], root=clone)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"{program}: error: {sys.executable} lacks the packages {ALL}; use `{USES[program]}`, or activate the "
        "environment first: `source .venv/bin/activate`.\n"
    )


def test_paths_are_those_of_the_folder_where_it_is_typed(clone):
    elsewhere = clone / "data"
    elsewhere.mkdir()
    ended = bare_python("../run_squad.py", root=clone, cwd=elsewhere)
    assert "use `../.venv/bin/python ../run_squad.py`, or" in ended.stderr


def test_without_an_environment_it_says_how_to_install(clone):
    (clone / ".venv/bin/python").unlink()
    ended = bare_python("run_squad.py", root=clone)
    assert ended.returncode == 2 and "; `make venv` or `pip install .` in the project's folder" in ended.stderr


@pytest.mark.parametrize("arguments", [("-m", "twinquant", "--help"), ("-m", "export", "--help")], ids=" ".join)
def test_what_needs_no_package_runs_without_any(arguments):
    ended = bare_python(*arguments)
    assert ended.returncode == 0 and ended.stderr == ""


def test_the_packages_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sorted(BASE_PACKAGES.values()) == sorted(line.split("==")[0] for line in project["dependencies"])
    assert project["requires-python"].startswith(f">={OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]},")


def test_here_nothing_is_missing():
    assert require_base_packages("run_squad.py") is None
