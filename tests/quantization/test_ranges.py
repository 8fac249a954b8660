"""Ranges that a mode can take, and the sentences about those it cannot."""

import numpy as np
import pytest

from quantization.modes import all_quantizers, custom_mode, enabled_quantizers, get_mode
from quantization.ranges import calibration_report, count_layers, fuse_qkv_ranges, select_ranges
from twinquant.errors import UserError

LAYERS, HIDDEN, INTERMEDIATE = 2, 6, 10
SELF = "bert/encoder/layer_1/attention/self"
KERNEL = "bert/encoder/layer_1/intermediate/dense/kernel_quantizer"
INPUT = "bert/encoder/layer_0/output/dense/input_quantizer"
SOURCE = "out/model.ckpt-7"


def tensors():
    """Only shapes matter here."""
    wide = ("intermediate/dense/kernel", (HIDDEN, INTERMEDIATE)), ("output/dense/kernel", (INTERMEDIATE, HIDDEN))
    names = ("attention/self/query", "attention/self/key", "attention/self/value", "attention/output/dense")
    shapes = dict([(f"{name}/kernel", (HIDDEN, HIDDEN)) for name in names] + list(wide))
    return {f"bert/encoder/layer_{n}/{k}": np.zeros(s, np.float32) for n in range(LAYERS) for k, s in shapes.items()}


def ranges_for(mode_name):
    """A complete calibration: one different amax per quantizer, per channel where the mode wants it."""
    mode, result = get_mode(mode_name), {}
    for number, (scope, row) in enumerate(all_quantizers(LAYERS).items()):
        shape = ()
        if row.is_weight and mode.per_channel:
            shape = (tensors()[scope.removesuffix("_quantizer")].shape[1],)
        result[scope] = (number + 1 + np.arange(np.prod(shape, dtype=int)).reshape(shape)).astype(np.float32)
    return result


@pytest.mark.parametrize("mode_name", ["ft1", "ft2", "ft3", "trt", "ort"])
def test_complete_ranges_are_selected(mode_name):
    mode, ranges = get_mode(mode_name), ranges_for(mode_name)
    selected = select_ranges(ranges, tensors(), mode, SOURCE)
    needed = {scope for scope, s in enabled_quantizers(LAYERS, mode).items() if s.fixed_scale is None}
    assert set(selected) == needed
    expected = fuse_qkv_ranges(ranges, LAYERS) if mode.fuse_qkv else ranges
    for scope, amax in selected.items():
        np.testing.assert_array_equal(amax, expected[scope], err_msg=scope)
        assert amax.dtype == np.float32


def test_ort_needs_no_range_of_the_softmax_output():
    ranges = {scope: amax for scope, amax in ranges_for("ort").items() if "matmul_a" not in scope}
    assert not any("matmul_a" in scope for scope in select_ranges(ranges, tensors(), get_mode("ort"), SOURCE))
    with pytest.raises(UserError, match="matmul_a_input_quantizer has no range"):
        select_ranges(ranges, tensors(), get_mode("ft1"), SOURCE)


def broken(change, mode_name="ft1"):
    ranges = ranges_for(mode_name)
    change(ranges)
    return ranges


@pytest.mark.parametrize(
    ("ranges", "mode_name", "scope", "found"),
    [
        ({}, "ft2", "query/kernel_quantizer", "never calibrated"),
        (broken(lambda r: r.pop(INPUT)), "ft1", INPUT, "calibrated without it"),
        (ranges_for("ft1"), "ft2", "query/kernel_quantizer", r"shape \(6,\).*ft2 needs \(\)"),
        (ranges_for("ft2"), "ft1", "query/kernel_quantizer", r"shape \(\).*ft1 needs \(6,\)"),
        (broken(lambda r: r.update({KERNEL: r[KERNEL][:-1]})), "ft1", KERNEL, r"shape \(9,\).*needs \(10,\)"),
        (broken(lambda r: r.update({INPUT: np.ones(1, np.float32)})), "ft1", INPUT, r"shape \(1,\).*needs \(\)"),
        (broken(lambda r: r.update({INPUT: np.float32(np.nan)})), "ft1", INPUT, "negative or not finite"),
        (broken(lambda r: r.update({INPUT: np.float32(np.inf)})), "ft1", INPUT, "negative or not finite"),
        (broken(lambda r: r.update({INPUT: np.float32(-1)})), "ft1", INPUT, "negative or not finite"),
        (broken(lambda r: np.put(r[KERNEL], 3, -1e-3)), "ft1", KERNEL, "negative or not finite"),
        (broken(lambda r: np.put(r[KERNEL], 9, np.nan)), "ft1", KERNEL, "negative or not finite"),
    ],
    ids=[
        "no-ranges",
        "missing",
        "ft1-ranges-for-ft2",
        "ft2-ranges-for-ft1",
        "too-few-channels",
        "vector-of-one",
        "nan",
        "infinite",
        "negative",
        "one-channel-negative",
        "one-channel-nan",
    ],
)
def test_unusable_ranges_name_quantizer_file_and_remedy(ranges, mode_name, scope, found):
    with pytest.raises(UserError, match=found) as caught:
        select_ranges(ranges, tensors(), get_mode(mode_name), SOURCE)
    sentence = str(caught.value)
    assert scope in sentence and SOURCE in sentence
    assert f"--do_calib --quant_mode={mode_name}" in sentence


def test_the_remedy_of_a_custom_mode_names_flags_that_exist():
    with pytest.raises(UserError) as caught:
        select_ranges({}, tensors(), custom_mode(), SOURCE)
    assert "--do_calib" in str(caught.value)
    assert "--quant_mode=custom" not in str(caught.value)  # no such mode can be asked for


def test_ranges_of_quantizers_that_are_off_are_not_looked_at():
    ranges = ranges_for("ft1") | {"bert/final_input_quantizer": np.float32(np.nan)}
    assert "bert/final_input_quantizer" not in select_ranges(ranges, tensors(), get_mode("ft1"), SOURCE)


@pytest.mark.parametrize("mode_name", ["ft2", "ft1"], ids=["per-tensor", "per-channel"])
def test_fusion_takes_the_maximum_of_each_group(mode_name):
    ranges = ranges_for(mode_name)
    before = {scope: amax.copy() for scope, amax in ranges.items()}
    fused = fuse_qkv_ranges(ranges, LAYERS)
    for layer in range(LAYERS):
        scope = f"bert/encoder/layer_{layer}/attention/self"
        for members in (
            [f"{scope}/{name}/kernel_quantizer" for name in ("query", "key", "value")],
            [f"{scope}/{name}/aftergemm_quantizer" for name in ("query", "key", "value")],
            [f"{scope}/matmul_{name}_input_quantizer" for name in "qkv"],
        ):
            maximum = np.max([before[member] for member in members], axis=0)
            for member in members:
                np.testing.assert_array_equal(fused.pop(member), maximum, err_msg=member)
    for scope, amax in fused.items():
        np.testing.assert_array_equal(amax, before[scope], err_msg=scope)
    for scope, amax in ranges.items():
        np.testing.assert_array_equal(amax, before[scope], err_msg="the argument was changed")


def test_fusion_twice_changes_nothing():
    once = fuse_qkv_ranges(ranges_for("ft2"), LAYERS)
    twice = fuse_qkv_ranges(once, LAYERS)
    assert once.keys() == twice.keys()
    for scope in once:
        np.testing.assert_array_equal(once[scope], twice[scope], err_msg=scope)


def test_fusion_leaves_incomplete_groups():
    ranges = {f"{SELF}/matmul_q_input_quantizer": np.float32(1), f"{SELF}/matmul_k_input_quantizer": np.float32(2)}
    assert fuse_qkv_ranges(ranges, LAYERS) == ranges


def test_layers_are_counted_from_names():
    assert count_layers(tensors()) == LAYERS
    assert count_layers({"bert/embeddings/word_embeddings": np.zeros(1)}) == 0
    assert count_layers({"bert/encoder/layer_11/output/dense/bias": np.zeros(1)}) == 12


def test_report_says_what_is_enabled_and_clipped():
    mode, ranges = get_mode("ft1"), ranges_for("ft1")
    report = calibration_report(ranges, {INPUT: 0.25}, {"calib_method": "max"}, LAYERS, mode)
    assert (report["quant_mode"], report["calib_method"]) == ("ft1", "max")
    assert list(report["quantizers"]) == list(all_quantizers(LAYERS))
    enabled = [scope for scope, entry in report["quantizers"].items() if entry["enabled"]]
    assert enabled == list(enabled_quantizers(LAYERS, mode))
    entry = report["quantizers"][INPUT]
    assert (entry["amax"], entry["clipped_fraction"]) == (float(ranges[INPUT]), 0.25)
    kernel = report["quantizers"][KERNEL]
    assert (kernel["amax_min"], kernel["amax_max"], kernel["channels"]) == (*ranges[KERNEL][[0, -1]], INTERMEDIATE)
