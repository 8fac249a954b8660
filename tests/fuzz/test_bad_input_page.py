"""docs/bad_input.md says what every bad input is answered with, and this test runs them all.

WRITE_BAD_INPUT=1 writes the page anew, for a reader to look over.
"""

import contextlib
import io
import os
import shutil
from pathlib import Path

import pytest
from bad_inputs import BASE, ROWS, Row, write_files
from missing_packages import MISSING

import run_glue
import run_squad
from export.__main__ import main as export_main
from twinquant.files import write_bytes_atomically
from twinquant.main import run_main

PAGE = Path(__file__).resolve().parents[2] / "docs/bad_input.md"
MAINS = {"run_squad.py": run_squad.main, "run_glue.py": run_glue.main, "python -m export": export_main}
HEAD = """\
# Bad input, and what is said

Bad input ends in one sentence on standard error, `run_squad.py: error: …`, with exit code 2 and nothing on standard
output; what was on the disk stays as it was. This page lists inputs that were tried. A test runs every row and compares
the sentence with the page (`tests/fuzz/test_bad_input_page.py`, which also writes it: `WRITE_BAD_INPUT=1`).

Beyond single inputs, `tests/fuzz/` damages a valid file of every form that is read (bytes changed, cut, moved; JSON
values of other types, numbers of thousands of digits, endless nesting, NaN, halves of surrogate pairs; headers and
tables with right checksums around wrong content): each must be read or refused in one sentence that names the file,
within ten seconds and 400 MB. `make test` repeats the same few thousand files, `make fuzz` tries new ones for ten
minutes.

The commands below follow these words; a later flag overrides an earlier one:

"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad") / "files"
    folder.mkdir()
    write_files(folder)
    return folder


def sentence(row: Row, files: Path, folder: Path) -> str:
    """What the command says in a copy of the files."""
    shutil.copytree(files, folder)
    row.change(folder)
    before = contents(folder)
    words = row.words.split() if row.words.endswith(".json") and " " not in row.words else [
        *(row.words.split()[:1] if row.script == "python -m export" else BASE[row.script]),
        *row.words.split()[row.script == "python -m export" :],
    ]  # fmt: skip
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_main(MAINS[row.script], row.script, words)
    assert code == 2 and not out.getvalue(), (code, out.getvalue(), err.getvalue())
    assert before.items() <= contents(folder).items()
    last = err.getvalue().splitlines()[-1]
    assert last.startswith(f"{row.script}: error: ") and err.getvalue().count(": error: ") == 1, err.getvalue()
    return last.partition(": error: ")[2]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cell(words: str) -> str:
    """Text within a table; long words are shortened."""
    shortened = " ".join(word if len(word) < 120 else f"{word[:40]}…{word[-1:].strip('a')}" for word in words.split())
    return shortened.replace("|", "\\|")


def line_of(row: Row, said: str) -> str:
    return f"| {cell(row.what)} | `{cell(row.words)}` | {cell(said)} |"


def page_lines() -> list[str]:
    return PAGE.read_text(encoding="utf-8").splitlines()


CASES = [row for rows in ROWS.values() for row in rows]


@pytest.mark.parametrize("row", CASES, ids=[row.what.replace(" ", "-") for row in CASES])
def test_the_page_tells_what_is_said(row: Row, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    if row.what == "no GPU":
        import torch

        if torch.version.cuda is not None:
            pytest.skip("a build of torch for CUDA says it in other words")
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    said = sentence(row, files, tmp_path / "in")
    if os.environ.get("WRITE_BAD_INPUT"):
        SAID[row.what, row.words] = said
    else:
        assert line_of(row, said) in page_lines()


SAID: dict[tuple[str, str], str] = {}


def test_the_page_has_no_other_rows() -> None:
    """And those of packages that are not installed, which tests/install/test_extras.py runs."""
    missing = [
        f"| {what} | `python {cell(' '.join(words).replace('{job}/', ''))}` | {cell(said.replace('{job}/', ''))} |"
        for what, (_, words, said) in MISSING.items()
    ]
    if os.environ.get("WRITE_BAD_INPUT"):
        parts = [HEAD + "".join(f"- `{script} {' '.join(words)}`\n" for script, words in BASE.items() if words)]
        head = "| what is wrong | command | sentence |\n|---|---|---|\n"
        for title, rows in ROWS.items():
            lines = "".join(line_of(row, SAID[row.what, row.words]) + "\n" for row in rows)
            parts.append(f"## {title}\n\n{head}{lines}")
        parts.append(f"## What is not installed\n\n{head}" + "".join(line + "\n" for line in missing))
        write_bytes_atomically(PAGE, "\n".join(parts).encode("utf-8"))
    lines = [line for line in page_lines() if line.startswith("| ") and not line.startswith("| what is wrong")]
    assert len(lines) == len(CASES) + len(missing)
    assert set(missing) <= set(lines)
