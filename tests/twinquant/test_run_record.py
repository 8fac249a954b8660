"""run.json: nothing of an earlier run is lost, a killed run is told from a running one, no secret is written."""

import errno
import json
import logging
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from training.interruption import Interrupted
from training.processes import PeerFailed
from training.script import recorded, until_interrupted
from twinquant.errors import UserError
from twinquant.git_revision import git_revision
from twinquant.process_identity import is_gone, this_process
from twinquant.run_record import FILE, RunRecord, read_records

REPOSITORY = Path(__file__).resolve().parents[2]


def record(folder: Path, *argv: str, **changes) -> RunRecord:
    return RunRecord(folder, "run_x.py", argv, {"seed": 1}, {"backend": "pytorch"}, **changes)


def test_what_a_finished_run_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("A_PASSWORD", "must not be seen")
    with recorded(record(tmp_path, "--seed=1", "two words")) as run:
        run.enter("train")
        run.enter("predict")
        run.enter("train")
        assert until_interrupted(lambda: {"f1": 50.0}, run) == (0, {"f1": 50.0})
    (found,) = read_records(tmp_path / FILE)
    assert (found["state"], found["exit_code"], found["error"], found["phase"]) == ("finished", 0, None, None)
    assert found["argv"] == ["--seed=1", "two words"]
    assert found["command"] == "python run_x.py --seed=1 'two words'"
    assert found["settings"] == {"seed": 1} and found["results"] == {"f1": 50.0} and found["backend"] == "pytorch"
    assert list(found["phases"]) == ["train", "predict"]
    assert sum(found["phases"].values()) == pytest.approx(found["seconds"], abs=0.1)
    assert found["started"] <= found["ended"] and found["started"].endswith("+00:00")
    assert found["versions"]["numpy"] and found["versions"]["python"] and found["machine"]["cpu"]
    assert found["threads"]["OMP_NUM_THREADS"] == "3" and "must not be seen" not in json.dumps(found)


class Defect(Exception):
    """An error of ours."""


ENDS = {
    "user error": (UserError("a sentence\nof two lines"), "failed", "a sentence of two lines", 2),
    "file denied": (
        PermissionError(errno.EACCES, "Permission denied", "a.json"),
        "failed",
        "cannot use a.json: Permission denied",
        2,
    ),
    "file missing": (
        FileNotFoundError(errno.ENOENT, "No such file", "a.json"),
        "failed",
        "FileNotFoundError: [Errno 2] No such file: 'a.json'",
        1,
    ),
    "reader gone": (BrokenPipeError(), "failed", "the reader of standard output has left", 141),
    "defect": (Defect("why"), "failed", "Defect: why", 1),
    "Ctrl-C": (KeyboardInterrupt(), "interrupted", "Ctrl-C", 130),
    "signal": (Interrupted("SIGTERM received", 15), "interrupted", "SIGTERM received", 143),
    "peer": (PeerFailed(1, 2), "failed", "rank 1 met an error", 2),
}


@pytest.mark.parametrize(("error", "state", "sentence", "code"), ENDS.values(), ids=ENDS)
def test_how_a_run_ended(error: BaseException, state: str, sentence: str, code: int, tmp_path: Path) -> None:
    with pytest.raises(type(error)), recorded(record(tmp_path)) as run:
        run.enter("train")
        raise error
    (found,) = read_records(tmp_path / FILE)
    assert (found["state"], found["error"], found["exit_code"]) == (state, sentence, code)


def test_an_interruption_that_was_handled(tmp_path: Path) -> None:
    def work() -> dict:
        raise Interrupted("SIGTERM received: saved", 15)

    with recorded(record(tmp_path)) as run:
        assert until_interrupted(work, run) == (143, {})
    assert [run["state"] for run in read_records(tmp_path / FILE)] == ["interrupted"]


def test_earlier_runs_stay(tmp_path: Path) -> None:
    for number in range(3):
        with recorded(record(tmp_path, str(number))) as run:
            run.enter("load")
    assert [run["argv"] for run in read_records(tmp_path / FILE)] == [["0"], ["1"], ["2"]]


def write_one(folder: Path, number: int) -> None:
    with recorded(record(folder, str(number))) as run:
        for phase in range(10):
            run.enter(f"phase {phase}")


def test_runs_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_one, args=(tmp_path, number)) for number in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    found = read_records(tmp_path / FILE)
    assert sorted(run["argv"][0] for run in found) == list("012345")
    assert {run["state"] for run in found} == {"finished"}
    assert os.listdir(tmp_path) == [FILE]  # no lock file, no temporary


KILLED = """
import os, signal, sys
from twinquant.run_record import RunRecord
run = RunRecord(sys.argv[1], "run_x.py", [], {})
run.enter("train")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_is_told_from_a_running_one(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], env=environment, check=False)
    running = record(tmp_path)
    running.enter("train")
    assert [run["state"] for run in read_records(tmp_path / FILE)] == ["killed", "running"]
    assert json.loads((tmp_path / FILE).read_text())["runs"][0]["state"] == "killed"  # set right by the later run


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({}, False),
        ({"started_ticks": 1}, True),
        ({"pid": 2**22 + 1}, True),
        ({"boot": "another"}, True),
        ({"host": "elsewhere"}, None),
        ({"pid": "1\0"}, True),
    ],
    ids=["itself", "number used again", "no such number", "before a restart", "another machine", "no number"],
)
def test_whether_a_process_is_gone(changes: dict, gone: bool | None) -> None:
    assert is_gone(this_process() | changes) is gone


def test_nothing_is_written_where_there_is_no_folder(tmp_path: Path) -> None:
    with recorded(record(tmp_path / "none")) as run:
        run.enter("load")
    with recorded(record(tmp_path, writes=False)) as run:
        run.enter("load")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("{", id="cut-off"),
        pytest.param("[]", id="a-list"),
        pytest.param('{"runs": [1]}', id="a-number-as-run"),
        pytest.param('{"runs": 5}', id="a-number-as-runs"),
        pytest.param("", id="empty"),
        pytest.param("[" * 100_000, id="nested-without-end"),
        pytest.param('{"runs": [{"id": "\\ud800"}]}', id="half-of-a-surrogate-pair"),
    ],
)
def test_a_damaged_record_is_kept_aside(content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / FILE).write_text(content)
    with caplog.at_level(logging.WARNING, "twinquant"), recorded(record(tmp_path)) as run:
        run.enter("load")
    (aside,) = tmp_path.glob("run.damaged-*.json")
    assert aside.read_text() == content and len(read_records(tmp_path / FILE)) == 1
    assert f"{tmp_path / FILE}" in caplog.text and aside.name in caplog.text


def test_a_record_that_cannot_be_written_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*arguments: object) -> None:
        raise UserError("cannot write run.json: No space left on device")

    monkeypatch.setattr("twinquant.run_record.write_json_atomically", full)
    with caplog.at_level(logging.WARNING, "twinquant"), recorded(record(tmp_path)) as run:
        run.enter("load")
    assert "the record of this run is not kept: cannot write run.json: No space left" in caplog.text


def test_tokens_are_not_written(tmp_path: Path) -> None:
    argv = ["--token=hf_abcdefgh=", "--hub-token", "hf_secret_2", "--tokenizer_name=bert", "-token", "hf_secret_3"]
    run = RunRecord(tmp_path, "run_x.py", argv, {"notes": ["--token was given (hf_abcdefgh=, hf_secret_2)"]})
    run.close("failed", "no model under hf_secret_3", 2)
    text = (tmp_path / FILE).read_text()
    assert "hf_" not in text and "--tokenizer_name=bert" in text
    assert run.values["argv"][:3] == ["--token=(hidden)", "--hub-token", "(hidden)"]


def test_the_commit(tmp_path: Path) -> None:
    """Of this clone; none of a folder inside somebody else's."""
    commands = (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"],
    )
    for words in commands:
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    (tmp_path / "inside").mkdir()
    found = git_revision(tmp_path.resolve())
    assert found is not None and len(found["commit"]) == 40 and found["changed"] is False
    assert git_revision((tmp_path / "inside").resolve()) is None
