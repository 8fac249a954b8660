"""Turns, percentiles and ratios of the comparison, on times that the test gives; names of rows and checkpoints."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from export.compare.accuracy import Accuracy, Agreement, agreement
from export.compare.latency import (
    Latency,
    full_batch,
    measure_rounds,
    parse_shapes,
    parse_threads,
    ratio,
)
from export.compare.process import RowError
from export.compare.report import choose_baseline, make_report
from export.compare.rows import KINDS, Row, checkpoint_names, select_rows
from export.compare.table import table_lines, words
from twinquant.errors import UserError
from twinquant.machine import describe_machine


class Clock:
    """A row whose times are given; keeps the order in which all rows were asked."""

    def __init__(self, name: str, seconds: list[float], turns: list[str], fails_at: int = -1) -> None:
        self.name, self.seconds, self.turns, self.fails_at = name, iter(seconds), turns, fails_at
        self.count = 0

    def time(self, batch: Mapping[str, np.ndarray]) -> tuple[float, float]:
        assert batch["input_ids"].shape == (2, 8)
        self.turns.append(self.name)
        if self.count == self.fails_at:
            raise RowError("gone", defect=True)
        self.count += 1
        seconds = next(self.seconds)
        return seconds, 2 * seconds


def test_rounds() -> None:
    rng = np.random.default_rng(0)
    times = {name: rng.random(10).tolist() for name in "abc"}
    turns: list[str] = []
    clocks = {name: Clock(name, seconds, turns) for name, seconds in times.items()}
    found = measure_rounds(clocks, full_batch((2, 8), 50), 9, {})
    assert turns != list("abc") * 10
    for number in range(10):  # every row once in every round
        assert sorted(turns[3 * number : 3 * number + 3]) == list("abc")
    for name, latency in found.items():
        assert latency.seconds == times[name][1:]  # the first warms up
        for percent in (50, 90):
            assert latency.percentile(percent) == pytest.approx(1000 * np.percentile(times[name][1:], percent))
        assert latency.busy_cores == pytest.approx(2.0)
    expected = np.median(times["a"][1:]) / np.median(times["b"][1:])
    assert ratio(found["a"], found["b"]) == pytest.approx(expected)


def test_a_row_that_fails_leaves_the_rounds() -> None:
    turns: list[str] = []
    clocks = {"a": Clock("a", [1.0] * 9, turns), "b": Clock("b", [1.0] * 9, turns, fails_at=2)}
    errors: dict[str, RowError] = {}
    found = measure_rounds(clocks, full_batch((2, 8), 50), 4, errors)
    assert list(found) == ["a"] and len(found["a"].seconds) == 4
    assert str(errors["b"]) == "gone" and turns.count("b") == 3


@pytest.mark.parametrize(
    ("given", "positions", "shapes", "notes"),
    [
        (["1x128", "8x128"], 512, [(1, 128), (8, 128)], 0),
        (["1x128", "1x384"], 128, [(1, 128)], 1),
        (["1x384", "1x512", "2x512"], 64, [(1, 64), (2, 64)], 3),
    ],
)
def test_shapes(given: list[str], positions: int, shapes: list[tuple[int, int]], notes: int) -> None:
    found, said = parse_shapes(given, positions)
    assert found == shapes and len(said) == notes
    assert all(f"the model has {positions} positions" in note for note in said)


def test_threads() -> None:
    assert parse_threads(["4", "1", "4"]) == [1, 4]
    assert parse_threads([])[0] == 1
    with pytest.raises(UserError, match="--threads: found 'two'"):
        parse_threads(["two"])


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["out/ptq/model.ckpt-calibrated"], ["ptq"]),
        (["models/minilm.v2", "out/qat/model.ckpt-12/"], ["minilm.v2", "qat"]),
        (["state/pytorch_model.bin", "bundle/bert_model.ckpt"], ["state", "bundle"]),
        (["out/qat/model.ckpt-1", "out/qat/model.ckpt-2/"], ["out/qat/model.ckpt-1", "out/qat/model.ckpt-2"]),
    ],
)
def test_names(paths: list[str], names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("state/pytorch_model.bin", "bundle/bert_model.ckpt.index"):
        Path(path).parent.mkdir()
        Path(path).touch()
    assert checkpoint_names(paths) == names
    with pytest.raises(UserError, match="is named twice"):
        checkpoint_names([*paths, f"./{paths[0]}"])


def test_selection() -> None:
    everything = select_rows(["a", "b"], [])
    assert [row.id for row in everything] == [f"{name}/{kind.name}" for name in "ab" for kind in KINDS]
    assert [row.id for row in select_rows(["a", "b"], ["*-int8", "b/pytorch-fp32"])] == [
        *(f"a/{runtime}-int8" for runtime in ("pytorch", "tensorflow", "onnxruntime", "openvino")),
        "b/pytorch-fp32",
        *(f"b/{runtime}-int8" for runtime in ("pytorch", "tensorflow", "onnxruntime", "openvino")),
    ]


def timed(name: str, seconds: float | None) -> Row:
    (row,) = select_rows(["m"], [name])
    if seconds is not None:
        row.latency = {1: {"1x8": Latency([seconds] * 3, [seconds] * 3)}}
        row.accuracy = Accuracy({"d/0": 1, "d/1": 0}, {"d/0": True, "d/1": False}, {"acc": 50.0}, "acc", 2, 1.0, 10**8)
        row.file_bytes, row.int8_share = 10**6, float("int8" in name)
    else:
        row.reason = "not today"
    return row


@pytest.mark.parametrize(
    ("rows", "asked", "expected", "said"),
    [
        ({"pytorch-fp32": 1.0, "onnxruntime-fp32": 2.0}, None, "m/onnxruntime-fp32", ""),
        ({"pytorch-fp32": 1.0, "onnxruntime-int8": 2.0}, None, "m/pytorch-fp32", ""),
        ({"pytorch-fp32": 1.0, "onnxruntime-fp32": None}, None, "m/pytorch-fp32", "onnxruntime-fp32 was not timed"),
        ({"pytorch-fp32": 1.0, "onnxruntime-int8": 2.0}, "onnxruntime-int8", "m/onnxruntime-int8", ""),
        ({"onnxruntime-fp32": 1.0, "openvino-int8": None}, "m/openvino-int8", "m/onnxruntime-fp32", "was not timed"),
        ({"onnxruntime-int8": 1.0}, None, "m/onnxruntime-int8", "no fp32 row was timed"),
        ({"onnxruntime-fp32": None}, None, None, "no row was timed"),
    ],
)
def test_baseline(rows: dict[str, float | None], asked: str | None, expected: str | None, said: str) -> None:
    row, note = choose_baseline([timed(name, seconds) for name, seconds in rows.items()], asked)
    assert (row.id if row else None) == expected and said in note and bool(note) == bool(said)


def test_report_and_table() -> None:
    rows = [timed("onnxruntime-fp32", 0.010), timed("onnxruntime-int8", 0.004), timed("openvino-int8", None)]
    rows[1].agreement = Agreement(2, 1, 1, 0, 1.0)
    settings = {"threads": [1], "batches": ["1x8"], "rounds": 3}
    report = make_report(rows, {}, rows[0], settings, describe_machine(), [])
    found = report["rows"][1]["latency"]["1"]["1x8"]
    assert found["times_as_fast"] == pytest.approx(2.5) and found["p90_ms"] == pytest.approx(4.0)
    report["checkpoints"] = {"m": {}}
    lines = table_lines(report)
    assert len({len(line) for line in lines}) == 1 and len(lines) == 5
    head, _, fp32, int8, missing = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    values = dict(zip(head, int8, strict=True))
    assert values == {
        "model": "onnxruntime-int8", "acc": "50.00", "Δ acc": "+0.00", "agree %": "50.00", "differ": "1",
        "flips": "1 : 0 (p 1)", "file MB": "1.0", "RSS MB": "100", "int8 %": "100.0", "ex/s": "2.0",
        "1x8, t=1": "4.0 / 4.0 (2.50x)",
    }  # fmt: skip
    assert fp32[-1] == "10.0 / 10.0 (1.00x)" and fp32[4] == "–" and set(missing[1:]) == {"–"}
    assert words(report) == [
        "onnxruntime-int8: acc 50.00 (+0.00 to fp32), 1 of 2 answers differ from fp32's, 1.0 MB (fp32: 1.0), 2.50 "
        "times as fast as onnxruntime-fp32"
    ]


def test_values_do_not_agree() -> None:
    """Of a regression there is no agreement to count."""
    values = Accuracy({"dev/0": 1.5}, {}, {"corr": 90.0}, "corr", 1, 1.0, 1)
    assert agreement(values, values) is None


def test_mcnemar() -> None:
    """Six answers lost and none won: two-sided p is 2 / 2**6."""
    keys = [f"dev/{number}" for number in range(10)]
    one = Accuracy(dict.fromkeys(keys, 1), dict.fromkeys(keys, True), {}, None, 10, 1.0, 1)
    answers = {key: int(number >= 6) for number, key in enumerate(keys)}
    other = Accuracy(answers, {key: bool(value) for key, value in answers.items()}, {}, None, 10, 1.0, 1)
    found = agreement(one, other)
    assert found is not None and (found.equal, found.lost, found.won) == (4, 6, 0)
    assert found.p_value == pytest.approx(2 / 2**6)


def test_machine(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(
        "processor : 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512_vnni avx\n\nprocessor : 1\nflags : fpu\n"
    )
    found = describe_machine(tmp_path / "cpuinfo")
    assert (
        found["cpu"] == "Some CPU" and found["vnni"] and found["decisive_cpu_flags"] == ["avx", "avx2", "avx512_vnni"]
    )
    assert "numpy" in found["versions"] and found["cores"] >= 1
    assert describe_machine(tmp_path / "nothing")["decisive_cpu_flags"] == []
