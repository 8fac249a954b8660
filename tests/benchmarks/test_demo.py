"""The demo: its plan, its tables, and that it fails where its claims do."""

import dataclasses
from pathlib import Path

import pytest

from benchmarks import demo
from benchmarks.commands import LOG
from benchmarks.demo_report import Bounds, Row, broken_promises, table
from benchmarks.demo_steps import Step, dynamic_comparison, exported_scores, plan
from twinquant.errors import UserError

BOUNDS = Bounds("accuracy", 74.0, {"int8 ft2": 12.0})
ROWS = (
    Row("sentences", "fine-tune", "fp32", "tensorflow", {"accuracy": 80.0}, 61.26, 90.0, 100.0),
    Row("sentences", "calibrate", "int8 ft2", "pytorch", {"accuracy": 76.25}, 9.0, 12.0, 98.0),
    Row(
        "sentences",
        "quantize",
        "int8 ft2",
        "pytorch",
        {"accuracy": 79.0},
        9.0,
        12.0,
        None,
        {"fp32_mb": 90, "int8_mb": 58},
    ),
)
LOG_OF_EXPORT = """17:14:36 answers: 1 of 94 differ (98.94 % are equal)
17:14:36 exact_match: 22.3404 of the model, 22.1100 of the checkpoint
17:14:36 f1: 36.7949 of the model, 36.7379 of the checkpoint
17:14:36 file: 58.58 MB (float32 47.88, int64 0.00)
"""


def changed(number: int, **changes) -> list[Row]:
    """ROWS with one row changed."""
    return [dataclasses.replace(row, **changes) if i == number else row for i, row in enumerate(ROWS)]


def test_table() -> None:
    assert table(ROWS).splitlines() == [
        "step        precision         backend      accuracy  seconds   same answers",
        "fine-tune   fp32              tensorflow      80.00     61.3        100.0 %",
        "calibrate   int8 ft2          pytorch         76.25      9.0         98.0 %",
        "quantize    int8 ft2          pytorch         79.00      9.0",
    ]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        pytest.param(
            changed(1, agreement=96.9),
            "sentences: int8 ft2 on pytorch agrees in 96.9 % of the answers, expected at least 97 %",
            id="backends-differ",
        ),
        pytest.param(
            changed(0, scores={"accuracy": 73.0}),
            "sentences: accuracy of the fine-tuned fp32 model is 73.00, expected at least 74",
            id="nothing-learned",
        ),
        pytest.param(
            changed(2, scores={"accuracy": 67.5}),
            "sentences: int8 ft2 on pytorch loses 12.50 points of accuracy, expected at most 12",
            id="int8-loses-too-much",
        ),
        pytest.param(
            changed(2, comparison={"fp32_mb": 90.0, "int8_mb": 90.0}),
            "sentences: the int8 ft2 file has 90.0 MB, not less than the 90.0 MB of fp32",
            id="file-not-smaller",
        ),
    ],
)
def test_a_broken_promise_is_named(rows: list[Row], sentence: str) -> None:
    assert broken_promises(rows, BOUNDS) == [sentence]


def test_kept_promises_are_silent() -> None:
    assert broken_promises(ROWS, BOUNDS) == []
    assert broken_promises(changed(1, agreement=97.0), BOUNDS) == []


def test_every_precision_of_the_plan_has_a_bound() -> None:
    """An int8 precision without a bound may lose nothing at all."""
    for step in plan():
        assert step.precision == "fp32" or step.precision in demo.BOUNDS[step.task].largest_loss


def test_plan_starts_from_earlier_steps_and_trains_on_both_backends() -> None:
    steps = plan()
    for number, step in enumerate(steps):
        assert step.start is None or any(step.start is earlier for earlier in steps[:number])
    assert {(step.task, step.backend) for step in steps if step.start is None} == {
        ("sentences", "tensorflow"),
        ("questions", "pytorch"),
    }


def test_dynamic_comparison_takes_the_best_times() -> None:
    report = {
        "seconds": {"fp32": {"1": 0.5, "2": 0.3}, "int8 dynamic": {"1": 0.125, "2": 0.25}},
        "sizes": {"float_bytes": 90_870_000, "int8_bytes": 58_000_000},
    }
    assert dynamic_comparison(report) == pytest.approx(
        {"fp32_mb": 90.87, "int8_mb": 58.0, "fp32_ms": 300, "int8_ms": 125}
    )


def test_exported_scores() -> None:
    scores, agreement, megabytes = exported_scores(LOG_OF_EXPORT, "log.txt")
    assert scores == {"EM": 22.3404, "F1": 36.7949}
    assert agreement == pytest.approx(100.0 * 93 / 94)
    assert megabytes == 58.58


def test_a_log_without_scores_is_an_error() -> None:
    with pytest.raises(UserError, match="log.txt does not say the F1, agreement of the exported model"):
        exported_scores("\n".join(LOG_OF_EXPORT.splitlines()[1::2]), "log.txt")


def test_a_failing_step_ends_the_demo_with_its_log(tmp_path: Path, monkeypatch, capsys) -> None:
    class Failing(Step):
        program = '-c "raise SystemExit(5)"'

    monkeypatch.setattr(demo, "plan", lambda: [Failing("questions", "fp32", "fine-tune", "pytorch", "")] * 2)
    monkeypatch.setattr(demo, "find_model", lambda: tmp_path)
    assert demo.main(["--output_dir", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr()
    (log,) = (tmp_path / "out").glob(f"*/01_*/{LOG}")
    assert "exit code 5" in shown.err and str(log) in shown.err
    assert "1/2 questions: fine-tune, fp32, pytorch" in shown.out and "2/2" not in shown.out


@pytest.mark.parametrize(
    ("found", "code"),
    [pytest.param(changed(1, agreement=50.0), 1, id="broken"), pytest.param(list(ROWS), 0, id="kept")],
)
def test_exit_code_is_1_where_promises_are_broken(found: list[Row], code: int, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(demo, "BOUNDS", {"sentences": BOUNDS})
    monkeypatch.setattr(demo, "find_model", lambda: tmp_path)
    monkeypatch.setattr(demo, "plan", lambda: [])
    monkeypatch.setattr(demo, "rows", lambda steps: found)
    assert demo.main(["--output_dir", str(tmp_path)]) == code
    shown = capsys.readouterr()
    assert table(found) in shown.out
    assert ("agrees in 50.0 %" in shown.err) == (code == 1)
