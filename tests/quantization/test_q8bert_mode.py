"""The column of q8bert against NLP Architect's list of layers, and its settings."""

import re

import numpy as np
import pytest

from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING
from quantization.modes import (
    HEAD_START_STEP,
    MODE_NAMES,
    Q8BERT,
    all_quantizers,
    custom_mode,
    enabled_quantizers,
    feeds_product,
    get_mode,
    is_calibrated,
    q8bert_mode,
)
from quantization.numerics import QuantizerSettings, gradient_mask
from quantization.ranges import select_ranges
from twinquant.errors import UserError

LAYER = "bert/encoder/layer_0"
# NLP Architect's names of a layer's linear modules, and the layers whose output is quantized again.
LINEAR = {
    "attention_query": "attention/self/query",
    "attention_key": "attention/self/key",
    "attention_value": "attention/self/value",
    "attention_output": "attention/output/dense",
    "ffn_intermediate": "intermediate/dense",
    "ffn_output": "output/dense",
}
REQUANTIZED = ["attention/self/matmul_q_input_quantizer", "attention/self/matmul_k_input_quantizer"]
EMBEDDINGS = ["bert/embeddings/word_embeddings_quantizer", "bert/embeddings/position_embeddings_quantizer"]
POOLER = ["bert/pooler/dense/kernel_quantizer", "bert/pooler/dense/input_quantizer"]
LAST = {
    CLASSIFICATION: ["output_weights_quantizer", "output_input_quantizer"],
    QUESTION_ANSWERING: ["cls/squad/output_weights_quantizer", "cls/squad/output_input_quantizer"],
}


def expected_scopes(head: str) -> set[str]:
    linear = {f"{LAYER}/{scope}/{kind}_quantizer" for scope in LINEAR.values() for kind in ("kernel", "input")}
    scopes = linear | {f"{LAYER}/{scope}" for scope in REQUANTIZED} | set(EMBEDDINGS) | set(LAST[head])
    return scopes | (set(POOLER) if head == CLASSIFICATION else set())


@pytest.mark.parametrize("head", LAST)
def test_quantized_tensors_are_nlp_architects(head):
    assert set(enabled_quantizers(1, q8bert_mode(), head)) == expected_scopes(head)


@pytest.mark.parametrize("head", LAST)
def test_all_settings_are_symmetric_narrow_and_per_tensor(head):
    settings = set(enabled_quantizers(2, q8bert_mode(), head).values())
    assert settings == {QuantizerSettings(num_bits=8, narrow_range=True, straight_through=True)}
    assert {(s.qmin, s.qmax) for s in settings} == {(-127, 127)}


def test_the_other_modes_leave_the_new_rows_off():
    for mode in (*map(get_mode, MODE_NAMES), custom_mode()):
        for head in LAST:
            assert enabled_quantizers(2, mode, head) == enabled_quantizers(2, mode)
            assert not mode.learns_ranges
    assert Q8BERT not in MODE_NAMES  # it is no choice of --quant_mode


def test_a_model_has_the_rows_of_its_own_head():
    encoder = set(all_quantizers(1))
    assert all(map(is_calibrated, encoder))
    for head, last in LAST.items():
        outside = set(all_quantizers(1, head)) - encoder
        assert outside == {*EMBEDDINGS, *last, *(POOLER if head == CLASSIFICATION else ())}
        assert not any(map(is_calibrated, outside))


def test_operands_of_products():
    for head in LAST:
        operands = {scope for scope in expected_scopes(head) if feeds_product(scope)}
        assert operands == expected_scopes(head) - set(EMBEDDINGS)


@pytest.mark.parametrize(("start_step", "head_start"), [(0, 200), (50, 200), (900, 900)])
def test_a_quantizer_starts_at_the_later_of_both_steps(start_step, head_start):
    mode = q8bert_mode(start_step)
    starts = {scope: mode.start_of(row) for scope, row in all_quantizers(1, CLASSIFICATION).items()}
    assert HEAD_START_STEP == 200
    assert {scope for scope, start in starts.items() if start == head_start} >= set(LAST[CLASSIFICATION])
    assert {start for scope, start in starts.items() if scope not in LAST[CLASSIFICATION]} == {start_step}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"start_step": -1}, "--start_step: found -1"),
        ({"ema_decay": 1.0}, "--ema_decay: found 1.0"),
        ({"ema_decay": float("nan")}, "--ema_decay: found nan"),
    ],
    ids=["start", "decay", "nan"],
)
def test_settings_out_of_range_are_user_errors(arguments, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        q8bert_mode(**arguments)


def test_the_gradient_passes_everywhere():
    settings = q8bert_mode().activation
    x = np.float32([-9, -0.5, 0, 0.5, 9, np.inf])
    assert gradient_mask(x, np.float32(0.5), settings).all()


@pytest.mark.parametrize("head", LAST)
def test_activations_alone_have_ranges(head):
    rows = all_quantizers(1, head)
    activations = {scope for scope in expected_scopes(head) if not rows[scope].is_weight}
    tensors = {f"{LAYER}/x": np.zeros(1), LAST[head][0].removesuffix("_quantizer"): np.zeros((2, 4), np.float32)}
    ranges = {scope: np.float32(number) for number, scope in enumerate(sorted(rows))}
    assert select_ranges(ranges, tensors, q8bert_mode(), "model") == {scope: ranges[scope] for scope in activations}
    missing = LAST[head][1]
    del ranges[missing]
    expected = f"quantizer {missing} has no range: model was not trained in mode q8bert; train it with --quant_scheme"
    with pytest.raises(UserError, match=re.escape(expected)):
        select_ranges(ranges, tensors, q8bert_mode(), "model")
