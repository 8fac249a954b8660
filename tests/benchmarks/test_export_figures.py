"""The figures of benchmarks/export.py on times that were made up, and which loop measures a CPU's peak."""

from pathlib import Path

import pytest

from benchmarks.export_figures import Figure, peak_figures, product_operations, speed_figures, summary
from benchmarks.export_models import PLAIN, STATIC
from benchmarks.export_openvino_peers import NNCF, SIGNED
from benchmarks.int8_peak import Peak, choose_instructions, measure_peak
from benchmarks.steps import BASE
from benchmarks.turns import (
    FLOAT,
    ONNXRUNTIME,
    OPENVINO,
    OURS,
    TORCH,
    Runner,
    Timing,
    fastest,
    take_turns,
    times_faster,
)
from twinquant.errors import UserError

TIMES = {
    "ours ft1": (OURS, 10.0),
    "ours ft1 portable": (OURS, 12.0),
    "ours ft2": (OURS, 11.0),
    PLAIN: (FLOAT, 40.0),
    "a slower fp32": (FLOAT, 50.0),
    "dynamic": (ONNXRUNTIME, 11.0),
    STATIC: (ONNXRUNTIME, 12.0),
    "some torch": (TORCH, 9.0),
    NNCF: (OPENVINO, 10.5),
    SIGNED: ("ours on openvino", 10.5),
}


def made_up(times: dict[str, tuple[str, float]]) -> dict[str, Timing]:
    return {name: Timing(group, [value] * 3, [value] * 3) for name, (group, value) in times.items()}


def found(vnni: bool, batch: str = "1x128") -> dict[str, Figure]:
    return {figure.what: figure for figure in speed_figures(batch, made_up(TIMES), vnni)}


@pytest.mark.parametrize(
    ("what", "value", "reached"),
    [
        (f"ours ft1 / fastest fp32: {PLAIN}", 4.0, True),
        ("ours ft1 / fastest quantizer: dynamic", 1.1, False),
        ("ours ft1 / some torch", 0.9, False),
        (f"ours ft1 / {NNCF}", 1.05, True),
        (f"{SIGNED} / {NNCF}", 1.0, True),
        (f"ours ft2 / {STATIC}", 12 / 11, True),
        ("ours ft1 portable / ours ft1", 10 / 12, False),
    ],
)
def test_figures(what: str, value: float, reached: bool) -> None:
    figure = found(vnni=True)[what]
    assert figure.value == pytest.approx(value) and figure.reached is reached


def test_bounds_that_do_not_hold_here_judge_nothing() -> None:
    assert found(vnni=False)[f"ours ft1 / fastest fp32: {PLAIN}"].reached is None
    assert found(True, "4x64")["ours ft1 / fastest quantizer: dynamic"].reached is None
    assert len(found(vnni=True)) == 7  # nothing is said of modes that were not measured


def test_summary() -> None:
    counts = summary(speed_figures("1x128", made_up(TIMES), vnni=True))
    assert counts == {"reached": 4, "not reached": 3, "no bound here": 0}


def test_share_of_the_peak() -> None:
    """BERT-base, 1 x 128: 22.3 GOP (21.7 in linear layers, 0.6 in attention)."""
    assert product_operations(BASE, 1, 128) == pytest.approx(22.3e9, rel=0.01)
    (figure,) = peak_figures("1x128", made_up({"ours": (OURS, 100.0)}), BASE, Peak("", 446.0, 1.0), ["ours", "absent"])
    assert figure.value == pytest.approx(0.5, rel=0.01)


def test_ratios_are_taken_within_rounds() -> None:
    ours, peer = Timing(OURS, [1.0, 10.0, 1.0]), Timing(ONNXRUNTIME, [2.0, 20.0, 2.2])
    assert times_faster(ours, peer) == 2.0
    assert fastest({"a": ours, "b": peer}, ONNXRUNTIME) == "b" and fastest({"a": ours}, ONNXRUNTIME) is None


def test_turns_begin_with_every_model() -> None:
    calls: list[str] = []
    runners = [Runner(name, OURS, lambda name=name: calls.append(name)) for name in "abc"]
    timings = take_turns(runners, rounds=3)
    assert "".join(calls[-9:]) == "abcbcacab" and all(len(timing.wall) == 3 for timing in timings.values())


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2 fma", "avx2"),
        ("fpu avx2 fma avx_vnni", "avxvnni"),
        ("fpu avx2 fma avx512f avx512_vnni avx_vnni", "avx512vnni"),
    ],
)
def test_instructions(flags: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags : {flags}\n")
    assert choose_instructions(tmp_path / "cpuinfo")[0] == expected


def test_a_cpu_without_them(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("flags : fpu sse2\n")
    with pytest.raises(UserError, match="AVX2 or better"):
        choose_instructions(tmp_path / "cpuinfo")


def test_the_loop_runs_here() -> None:
    try:
        choose_instructions()
    except UserError as error:
        pytest.skip(str(error))
    peak = measure_peak(0.05)
    assert peak.int8 > peak.fp32 > 1.0
