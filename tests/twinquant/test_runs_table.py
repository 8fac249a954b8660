"""`twinquant runs`: what the table shows, and what is said of records that cannot be read."""

import subprocess
import sys
from pathlib import Path

import pytest

from twinquant.__main__ import main
from twinquant.errors import UserError
from twinquant.run_record import RunRecord
from twinquant.runs_table import describe_results

REPOSITORY = Path(__file__).resolve().parents[2]


def leave(folder: Path, started: str, state: str = "finished", error: str | None = None, **facts: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    run = RunRecord(folder, "run_squad.py", [], {}, {"backend": "pytorch", "processes": 1})
    run.note(started=started, **facts)
    run.close(state, error)


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["runs", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = {"exact_match": 51.2604, "f1": 65.6, "total": 1190}
    phases = {"load": 1.0, "calibrate": 2.0, "predict": 3.0}
    leave(tmp_path / "b/deep", "2026-01-02T03:04:05+00:00", mode="ft2", results=scores, phases=phases)
    leave(tmp_path / "a", "2026-01-03T00:00:00+00:00", "failed", "no such file", processes=4, phases={"load": 0.5})
    repeated = {"acc": {"mean": 0.5, "standard_deviation": 0.01}}
    leave(tmp_path / "a", "2026-01-01T00:00:00+00:00", results=repeated, part="the first 100 examples")
    header, *rows = shown(capsys, str(tmp_path), "--errors")
    assert header.split() == "when (UTC) script phases backend mode result seconds state folder".split()
    assert [row[:16] for row in rows[:3]] == ["2026-01-01 00:00", "2026-01-02 03:04", "2026-01-03 00:00"]
    assert "acc 0.5 +- 0.01 (the first 100 examples)" in rows[0]
    assert "calibrate predict" in rows[1] and "ft2" in rows[1] and "exact_match 51.26, f1 65.6 " in rows[1]
    assert "finished" in rows[1] and rows[1].endswith(str(tmp_path / "b/deep")) and "1190" not in rows[1]
    assert "failed" in rows[2] and "pytorch x4" in rows[2] and " load " in rows[2]
    assert rows[3] == f"{tmp_path / 'a'}, 2026-01-03T00:00:00+00:00: no such file"
    places = {row.index("run_squad.py") for row in rows[:3]} | {header.index("script")}
    assert len(places) == 1  # the columns stand below each other


def test_unreadable_records_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(tmp_path / "good", "2026-01-01T00:00:00+00:00")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/run.json").write_text("{")
    assert main(["runs", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "finished" in out and f"not shown: {tmp_path}/bad/run.json is not a JSON file: " in out


def test_strange_values_are_shown_as_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text('{"runs": [{"id": "x", "phases": 5, "results": [], "seconds": "long"}]}')
    _, row = shown(capsys, str(tmp_path))
    assert row.split() == ["-"] * 8 + [str(tmp_path)]


def test_no_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, str(tmp_path)) == [f"no run left a record in {tmp_path}"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["runs"], "name at least one folder"),
        (["runs", "nowhere"], "nowhere is no folder"),
        (["runs", ".", "--wrong"], "unknown flag --wrong"),
        (["walks"], "unknown command 'walks'; expected one of runs"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusals(words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        main(words)


def test_from_a_clone(tmp_path: Path) -> None:
    leave(tmp_path, "2026-01-01T00:00:00+00:00")
    words = [sys.executable, "-m", "twinquant", "runs", str(tmp_path)]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and "run_squad.py" in done.stdout, done.stderr
    assert "runs " in subprocess.run(words[:3], cwd=REPOSITORY, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    "scores",
    [{"acc": {"mean": 0.5, "standard_deviation": "x"}}, {"acc": {"mean": []}}, {"acc": "x"}, 5, None],
    ids=repr,
)
def test_results_of_a_damaged_record(scores: object) -> None:
    assert describe_results(scores) == "-"
