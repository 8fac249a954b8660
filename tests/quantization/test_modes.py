"""The table of modes against FasterTransformer's own way of stating it: regular expressions over quantizer names."""

import re

import pytest

from checkpoints.names import quantizer_module
from quantization.modes import (
    LAYER_ROWS,
    MODE_NAMES,
    MODEL_ROWS,
    QKV_GROUPS,
    all_quantizers,
    custom_mode,
    enabled_quantizers,
    get_mode,
)
from quantization.numerics import QuantizerSettings
from twinquant.errors import UserError

BERT_BASE_LAYERS = 12
ENABLED_IN_BERT_BASE = {"ft1": 192, "ft2": 288, "ft3": 300, "trt": 241, "ort": 192}

# What each original leaves off, by regular expression over its own names of the quantizers.
DISABLED_SCOPES = {
    "ft1": ("aftergemm", "softmax_input", "residual_input", "local_input", "final_input"),
    "ft2": ("local_input", "softmax_input", "final_input"),
    "ft3": ("local_input", "final_input"),
    "trt": ("aftergemm", "softmax_input"),
}
DISABLED_MODULES = {
    "ft1": ("final_input", "layernorm_input", "softmax_input", "residual_input", "local_input", "aftergemm"),
    "ft2": ("final_input", "layernorm_input", "softmax_input", "local_input"),
    "ft3": ("final_input", "layernorm_input", "local_input"),
    "trt": ("layernorm_input", "softmax_input", "aftergemm"),
}
PER_CHANNEL = {"ft1": True, "ft2": False, "ft3": False, "trt": False, "ort": True}
FUSED = {"ft1": False, "ft2": True, "ft3": True, "trt": True, "ort": False}


def test_bert_base_has_the_quantizers_of_both_originals():
    quantizers = all_quantizers(BERT_BASE_LAYERS)
    in_tensorflow = [scope for scope in quantizers if "layernorm_input" not in scope]
    assert len(quantizers) == 349
    assert len(in_tensorflow) == 325
    assert sum(quantizers[scope].is_weight for scope in in_tensorflow) == 72


@pytest.mark.parametrize("mode", MODE_NAMES)
def test_number_of_enabled_quantizers_in_bert_base(mode):
    assert len(enabled_quantizers(BERT_BASE_LAYERS, get_mode(mode))) == ENABLED_IN_BERT_BASE[mode]


@pytest.mark.parametrize("mode", DISABLED_SCOPES)
def test_columns_are_the_tensorflow_originals_lists(mode):
    in_tensorflow = [scope for scope in all_quantizers(2) if "layernorm_input" not in scope]
    expected = {s for s in in_tensorflow if not any(re.search(keyword, s) for keyword in DISABLED_SCOPES[mode])}
    assert set(enabled_quantizers(2, get_mode(mode))) == expected


@pytest.mark.parametrize("mode", DISABLED_MODULES)
def test_columns_are_the_pytorch_twins_lists(mode):
    modules = {scope: quantizer_module(scope) for scope in all_quantizers(2)}
    expected = {s for s, m in modules.items() if not any(re.search(keyword, m) for keyword in DISABLED_MODULES[mode])}
    assert set(enabled_quantizers(2, get_mode(mode))) == expected


@pytest.mark.parametrize("mode", DISABLED_MODULES)
def test_the_twins_keywords_as_a_custom_mode_give_the_named_mode(mode):
    named = get_mode(mode)
    custom = custom_mode(PER_CHANNEL[mode], FUSED[mode], DISABLED_MODULES[mode])
    assert enabled_quantizers(3, custom) == enabled_quantizers(3, named)
    assert (custom.per_channel, custom.fuse_qkv) == (named.per_channel, named.fuse_qkv)


@pytest.mark.parametrize("mode", MODE_NAMES)
def test_settings_of_weights_and_activations(mode):
    column = get_mode(mode)
    assert (column.per_channel, column.fuse_qkv) == (PER_CHANNEL[mode], FUSED[mode])
    quantizers = all_quantizers(1)
    for scope, settings in enabled_quantizers(1, column).items():
        if quantizers[scope].is_weight:
            assert settings == QuantizerSettings(narrow_range=True, axis=1 if PER_CHANNEL[mode] else None), scope
        elif not (mode == "ort" and "matmul_a" in scope):
            assert settings == QuantizerSettings(), scope


def test_ort_is_ft1_with_an_unsigned_softmax_output():
    ft1, ort = (enabled_quantizers(2, get_mode(name)) for name in ("ft1", "ort"))
    changed = [f"bert/encoder/layer_{layer}/attention/self/matmul_a_input_quantizer" for layer in range(2)]
    assert ort.keys() == ft1.keys()
    assert [scope for scope in ft1 if ort[scope] != ft1[scope]] == changed
    for scope in changed:
        settings = ort[scope]
        assert (settings.qmin, settings.qmax, settings.fixed_scale) == (0, 255, 1 / 255)


@pytest.mark.parametrize(
    ("keyword", "disabled"),
    [
        ("layer.1.attention", set()),
        (r"_weight_quantizer$", {"kernel_quantizer"}),
        (r"attention/self/key/", {"attention/self/key/"}),
        (r"^bert\.encoder\.final", {"final_input_quantizer"}),
    ],
    ids=["another-layer", "module-name", "scope", "anchored"],
)
def test_keywords_are_searched_in_module_names_and_scopes(keyword, disabled):
    rows = {row.scope for row in LAYER_ROWS + MODEL_ROWS}
    expected = {scope for scope in rows if not any(part in scope for part in disabled)}
    assert custom_mode(disabled_keywords=(keyword,)).enabled == expected


def test_custom_mode_carries_bits_and_range():
    custom = custom_mode(narrow_range=True, weight_bits=4, activation_bits=6)
    settings = enabled_quantizers(1, custom)
    assert settings["bert/encoder/layer_0/output/dense/kernel_quantizer"].qmax == 7
    activation = settings["bert/final_input_quantizer"]
    assert (activation.qmin, activation.qmax) == (-31, 31)


def test_qkv_groups_are_rows_of_the_table():
    rows = {row.scope for row in LAYER_ROWS}
    assert len(QKV_GROUPS) == 3
    assert all(scope in rows for group in QKV_GROUPS for scope in group)


def test_unknown_names_are_user_errors():
    with pytest.raises(UserError, match="'ft4'.*ft1, ft2, ft3, trt, ort"):
        get_mode("ft4")
    with pytest.raises(UserError, match=r"--quant-disable-keyword: '\['"):
        custom_mode(disabled_keywords=("[",))
