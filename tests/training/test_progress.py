"""Progress on a terminal, with the time that is left, and in a log."""

import io
import logging
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from training import progress as progress_module
from training.progress import Progress

REPOSITORY = Path(__file__).resolve().parents[2]
CODE = """
import time
from training.progress import Progress
with Progress("train", 20, "step", initial=5) as progress:
    for step in range(15):
        time.sleep(0.05)
        progress.advance(1, f"loss {step}.5")
"""


def test_a_bar_with_the_time_left_on_a_terminal() -> None:
    terminal, end = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", CODE], cwd=REPOSITORY, stderr=end)
    os.close(end)
    shown = b""
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # Linux's way of telling that the other end is closed
            break
        if not data:
            break
        shown += data
    assert process.wait(60) == 0
    # tqdm: elapsed<left, rate
    between = re.findall(r"train:\s+\d+%\|[^|]*\| (\d+)/20 \[\d\d:\d\d<(\d\d:\d\d),[^\]]*loss [\d.]+\]", shown.decode())
    assert len(between) > 2 and all(5 < int(done) <= 20 for done, _ in between), shown


@pytest.mark.parametrize(
    ("keywords", "lines"),
    [({"every": 4}, ["4", "8", "10"]), ({"lines": False}, []), ({"quiet": True, "every": 4}, [])],
    ids=["lines", "bar only", "quiet"],
)
def test_lines_in_a_log(
    keywords: dict, lines: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with caplog.at_level(logging.INFO, "twinquant"), Progress("predict", 10, "row", **keywords) as progress:
        for _ in range(10):
            progress.advance(1, "loss 1")
    assert [re.fullmatch(r"predict: (\d+) of 10 rows, [\d.]+ rows/s, loss 1", m)[1] for m in caplog.messages] == lines


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its only entry is the time that time.monotonic tells."""
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    return now


def test_a_slow_first_step_is_in_the_first_line_alone(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """20 seconds for the first, as to compile it, and half a second for each of the others, in a resumed run."""
    with caplog.at_level(logging.INFO, "twinquant"), Progress("train", 36, "step", initial=6, every=10) as progress:
        for step in range(30):
            clock[0] += 0.5 if step else 20.0
            progress.advance()
    assert [re.search(r"[\d.]+(?= steps/s)", message)[0] for message in caplog.messages] == ["0.41", "2.00", "2.00"]
    assert progress.summary() == "30 steps in 34.5 s; 2.00 steps/s without the first step"


def test_one_step_is_all(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "twinquant"), Progress("train", 1, "batch") as progress:
        clock[0] += 4.0
        progress.advance()
    assert caplog.messages == ["train: 1 of 1 batch, 0.25 batches/s"]
    assert progress.summary() == "1 batch in 4.0 s"
