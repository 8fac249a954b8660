"""The files of hashes, what reads and writes them, and the page of licenses."""

import dataclasses
import re
import subprocess
import sys
import tomllib

import pytest

from install import environment, licenses, lock
from install.lock import LEFT_OUT, ROOT, disagreements, lock_path, lock_text, read_lock, read_pins
from twinquant.errors import UserError

PYTHONS = ["3.11", "3.12"]


@pytest.mark.parametrize("python", PYTHONS)
def test_the_locks_agree_with_the_pins(python: str) -> None:
    """If this fails after a change of pins: `make lock`."""
    assert disagreements(read_pins(), read_lock(lock_path(python))) == []


@pytest.mark.parametrize("python", PYTHONS)
def test_a_lock_holds_names_versions_and_hashes_alone(python: str) -> None:
    """No host or path that the files came from, and no file without a hash."""
    text = lock_path(python).read_text(encoding="ascii")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for requirement, digest in zip(lines[::2], lines[1::2], strict=True):
        assert re.fullmatch(r"[a-z0-9-]+==[\w.!+]+ \\", requirement), requirement
        assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", digest), digest
    assert len(read_lock(lock_path(python))) == len(lines) // 2 > 60
    assert "://" not in text


def test_what_is_left_out() -> None:
    """torch and what its CUDA builds alone need; packages that only begin alike stay in."""
    assert all(LEFT_OUT.fullmatch(name) for name in ("torch", "triton", "nvidia-cublas", "cuda-toolkit"))
    assert not any(LEFT_OUT.fullmatch(name) for name in ("torchao", "tritonclient", "nvidia", "tensorflow"))


def test_every_pin_is_exact() -> None:
    pins = read_pins()
    for line in [*pins.requirements, *pins.bare]:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][\w.]*", line), line
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for lines in project["optional-dependencies"].values():
        assert all("==" in line for line in lines)


def test_a_changed_pin_is_noticed() -> None:
    pins, found = read_pins(), read_lock(lock_path("3.11"))
    changed = [line.replace("numpy==", "numpy==9") for line in pins.requirements]
    (name,) = disagreements(dataclasses.replace(pins, requirements=changed), found)
    assert name.startswith("numpy==9")
    assert disagreements(pins, {name: entry for name, entry in found.items() if name != "onnx"})[0].startswith("onnx==")


def test_the_text_of_a_lock() -> None:
    """Of pip's report: names as indexes spell them, sorted, without what is left out and without addresses."""

    def item(name: str, version: str, digest: str | None) -> dict:
        archive = {"hashes": {"sha256": digest}} if digest else {}
        return {
            "metadata": {"name": name, "version": version},
            "download_info": {"url": "https://example.org/x.whl", "archive_info": archive},
        }

    reports = [
        {"install": [item("typing_extensions", "4.1", "a" * 64), item("torch", "2.13.0+cpu", "b" * 64)]},
        {"install": [item("Absl.Py", "2.0", "c" * 64), item("nvidia-nccl-cu13", "2", "d" * 64)]},
    ]
    text = lock_text(reports, "3.11", "torch==2.13.0")
    assert read_lock_text(text) == ["absl-py==2.0", "typing-extensions==4.1"]
    assert "example.org" not in text and "torch==2.13.0 is not among them" in text
    with pytest.raises(UserError, match="pip's report has no SHA-256 of six 1.0"):
        lock_text([{"install": [item("six", "1.0", None)]}], "3.11", "torch==2.13.0")


def read_lock_text(text: str) -> list[str]:
    return [line.removesuffix(" \\") for line in text.splitlines() if "==" in line and not line.startswith("#")]


def test_an_interpreter_that_is_not_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert lock.main(["python9.99"]) == 1
    assert "there is no python9.99 that runs; its file stays as it is" in capsys.readouterr().err
    with pytest.raises(UserError, match="no interpreter is given"):
        lock.main([])


def test_the_steps_of_an_installation() -> None:
    """With a lock nothing but torch comes without a hash, and the build of the package downloads nothing."""
    locked, torch, package = environment.steps(lock_path("3.11"))
    assert "--require-hashes" in locked and locked[-1] == "requirements/linux-x86_64-cp311.txt"
    assert torch == [read_pins().torch] and "--no-build-isolation" in package
    assert "setuptools" in read_lock(lock_path("3.11"))
    first, second, bare = environment.steps(None)
    assert first == torch and second[-1] == package[-1] and bare[0] == "--no-deps"


def test_a_lock_that_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    pins = read_pins()
    monkeypatch.setattr(environment, "read_pins", lambda: dataclasses.replace(pins, bare=["pip==0.1"]))
    monkeypatch.setattr(environment, "find_lock", lambda: lock_path("3.11"))
    monkeypatch.setattr(sys, "prefix", "elsewhere")
    with pytest.raises(UserError, match=r"cp311.txt lacks pip==0.1 of pyproject.toml: `make lock` writes it anew"):
        environment.main([])


def test_a_file_of_another_hash(tmp_path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A registry that serves something else: refused by pip, and the sentence says the way out."""
    wheel = tmp_path / "six-1.17.0-py2.py3-none-any.whl"
    wheel.write_bytes(b"PK\x05\x06" + bytes(18))
    text = f"six @ file://{wheel} \\\n    --hash=sha256:{'0' * 64}\n"
    (tmp_path / "lock.txt").write_text(text)
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "find_lock", lambda: tmp_path / "lock.txt")
    monkeypatch.setattr(environment, "disagreements", lambda pins, found: [])
    steps = [["--dry-run", "--no-deps", "--require-hashes", "-r", "lock.txt"]]
    monkeypatch.setattr(environment, "steps", lambda found: steps)
    monkeypatch.setattr(sys, "prefix", "elsewhere")
    with pytest.raises(UserError, match="where your registry serves other files .* `make venv UNLOCKED=1` installs"):
        environment.main([])
    assert "DO NOT MATCH THE HASHES" in capfd.readouterr().err


def test_not_into_the_system() -> None:
    code = "import sys; sys.prefix = sys.base_prefix; from install.environment import main; main([])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "is not of a virtual environment; `make venv` makes one" in done.stderr


def test_the_page_of_licenses_is_current() -> None:
    """If this fails: `make lock`, or `python -m install.licenses` where the lock did not change."""
    assert licenses.read_page() == licenses.expected_versions()
    text = licenses.PAGE.read_text(encoding="utf-8")
    assert all(re.fullmatch(r"\| \S+ \| \S+ \| [^|]+ \|", line) for line in text.splitlines() if line.startswith("| "))


def test_licenses_are_read_from_what_is_installed() -> None:
    assert licenses.license_of("onnx") == "Apache-2.0"  # License-Expression
    assert licenses.license_of("six") == "MIT"  # License
    assert licenses.license_of("matplotlib") == "Python Software Foundation License"  # a long License: the classifier
