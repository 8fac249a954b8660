"""Flags of `python -m export` that change nothing are told."""

import logging
from dataclasses import fields, replace
from types import SimpleNamespace

import pytest

from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING
from export.check import Comparison
from export.data import _warn_of_idle
from export.flags import onnx_arguments, parse_check_flags, parse_onnx_flags
from export.settings import PRECISIONS, ExportSettings
from export.verdict import Bounds, Verdict, bounds_in_use

ONNX = ["--checkpoint=c", "--output=o"]
CHECK = ["--checkpoint=c", "--model=m"]
NAMES = [field.name for field in fields(Bounds) if field.name != "one_may_differ"]


@pytest.mark.parametrize(
    ("words", "notes"),
    [
        pytest.param("", [], id="nothing"),
        pytest.param("--max_seq_length=64 --do_lower_case=false", [], id="the-card-tells-them"),
        pytest.param(
            "--doc_stride=64 --max_examples=9",
            ["warning: --max_examples, --doc_stride have no effect without --check_data."],
            id="of-data",
        ),
        pytest.param("--check_data=d --doc_stride=64 --check_examples=9", [], id="on-data"),
        pytest.param(
            "--nocheck --data=d --threads=2",
            ["warning: --data, --threads have no effect without --check."],
            id="unchecked",
        ),
        pytest.param(
            "--min_equal_answers=90 --max_logit_difference=1",
            [
                "warning: --min_equal_answers has no effect on a model of precision fp32, compared on random tokens."
            ],
            id="bounds-of-fp32",
        ),
        pytest.param(
            "--precision=int8-dynamic --check_data=d --max_layer_difference=1 --max_relative_difference=1",
            [
                "warning: --max_layer_difference, --max_relative_difference have no effect on a model of precision "
                "int8-dynamic, compared on data."
            ],
            id="bounds-of-int8-dynamic",
        ),
        pytest.param("--precision=int8 --max_layer_difference=1 --max_relative_difference=1", [], id="bounds-of-int8"),
    ],
)  # fmt: skip
def test_onnx(words: str, notes: list[str]) -> None:
    assert list(parse_onnx_flags([*ONNX, *words.split()]).notes) == notes


@pytest.mark.parametrize("on_data", [True, False], ids=["data", "random-tokens"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_bounds_in_use_are_those_that_judge(precision: str, on_data: bool) -> None:
    """Each alone breaks a model that differs in everything, or has no effect on it."""
    found = Comparison(rows=1, largest=9.0, mean=9.0, relative=None if on_data else 9.0)
    if on_data:
        found = replace(found, answers=10, equal_answers=0, main_scores=(90.0, 0.0))
    lenient = {name: 0.0 if name.startswith("min_") else 1e3 for name in NAMES}
    strict = {name: 100.0 if name.startswith("min_") else 0.0 for name in NAMES}
    for name in NAMES:
        layers = [9.0] if precision == "int8" else []
        verdict = Verdict(ExportSettings(precision), found, layers)
        verdict.judge(Bounds(**lenient | {name: strict[name]}, one_may_differ=False))
        assert bool(verdict.failures) == (name in bounds_in_use(precision, on_data)), (name, verdict.failures)


@pytest.mark.parametrize(
    ("words", "notes"),
    [
        pytest.param("--threads=2", [], id="none"),
        pytest.param("--max_seq_length=64", ["warning: --max_seq_length has no effect without --data."], id="length"),
        pytest.param("--data=d --max_seq_length=64", [], id="on-data"),
    ],
)
def test_check(words: str, notes: list[str]) -> None:
    assert list(parse_check_flags([*CHECK, *words.split()]).notes) == notes


@pytest.mark.parametrize(
    ("head", "given", "told"),
    [
        pytest.param(QUESTION_ANSWERING, {"doc_stride": 64}, "", id="squad"),
        pytest.param(CLASSIFICATION, {"text_column": ["a"], "label_column": "b"}, "", id="texts"),
        pytest.param(QUESTION_ANSWERING, {"text_column": ["a"], "label_column": "b"}, "--text_column, --label_column",
                     id="columns-of-squad"),
        pytest.param(CLASSIFICATION, {"doc_stride": 64}, "--doc_stride", id="stride-of-texts"),
    ],
)  # fmt: skip
def test_flags_of_the_other_head(
    head: str, given: dict[str, object], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "twinquant"):
        _warn_of_idle(onnx_arguments(**given), SimpleNamespace(head=head, name="model"))  # type: ignore[arg-type]
    has = "have" if "," in told else "has"
    assert caplog.messages == ([f"warning: {told} {has} no effect: model is for {head}"] if told else [])
