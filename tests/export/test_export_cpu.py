"""Which CPUs multiply uint8 with int8 exactly, and what follows for a model."""

from pathlib import Path

import pytest
from tiny_exports import tiny_source

from export.commands import choose_settings
from export.cpu import has_vnni
from export.flags import parse_onnx_flags
from export.metadata import Metadata
from export.runtime import EXACT_WITHOUT_VNNI, session_entries
from export.settings import ExportSettings

REQUIRED = ["--checkpoint=c", "--output=o"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx2 avx512f avx512_vnni", True), ("fpu avx2 avx_vnni", True), ("fpu avx2 avx512f", False), ("", False)],
)
def test_cpuinfo(flags: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: {flags}\n")
    assert has_vnni("this", tmp_path / "cpuinfo") is expected
    assert has_vnni("this", tmp_path / "none") is False
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert has_vnni("this", tmp_path / "cpuinfo")


def settings(*words: str) -> ExportSettings:
    return choose_settings(parse_onnx_flags([*REQUIRED, *words]), tiny_source(mode="ft1"))


@pytest.mark.parametrize(
    ("words", "reduce_range", "vnni"),
    [
        ("--precision=fp32 --cpu=avx2", False, True),
        ("--precision=int8 --quant_mode=ft1 --cpu=vnni", False, True),
        ("--precision=int8 --quant_mode=ft1 --cpu=arm", False, True),
        ("--precision=int8 --quant_mode=ft1 --cpu=avx2", True, False),
        ("--precision=int8 --quant_mode=ft1 --cpu=avx512", True, False),
        ("--precision=int8 --quant_mode=ft1 --cpu=avx2 --noreduce_range", False, False),
        ("--precision=int8 --quant_mode=ft1 --cpu=vnni --reduce_range", True, True),
        ("--precision=int8 --quant_mode=ft1 --cpu=avx2 --portable", True, True),
        ("--precision=int8 --quant_mode=ft1 --cpu=avx2 --target=openvino", False, True),
        ("--precision=int8-dynamic --cpu=avx2", True, True),
    ],
)
def test_reduced_range_is_chosen_by_the_cpu(words: str, reduce_range: bool, vnni: bool) -> None:
    found = settings(*words.split())
    assert (found.reduce_range, found.vnni) == (reduce_range, vnni)


@pytest.mark.parametrize(
    ("reduce_range", "cpu", "expected"),
    [("false", "avx2", True), ("false", "vnni", False), ("true", "avx2", False), ("true", "vnni", False)],
)
def test_the_exact_kernels_are_asked_for_where_they_are_needed(reduce_range: str, cpu: str, expected: bool) -> None:
    """With VNNI onnxruntime would multiply at half the speed, to the same integers."""
    metadata = Metadata({"target": "onnxruntime", "reduce_range": reduce_range})
    assert (EXACT_WITHOUT_VNNI in session_entries(metadata, cpu)) is expected


def test_reduced_weights_cannot_saturate() -> None:
    """Two products of uint8 and a weight fit into 16 bits; those of full weights do not."""
    reduced = settings("--precision=int8", "--quant_mode=ft1", "--cpu=avx2").effective_mode
    full = settings("--precision=int8", "--quant_mode=ft1", "--cpu=vnni").effective_mode
    assert reduced is not None and full is not None
    assert 2 * 255 * reduced.weight.qmax < 2**15 <= 2 * 255 * full.weight.qmax
    assert reduced.activation == full.activation
