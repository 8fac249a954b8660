"""--quant_exclude: which quantizers a pattern or a file of patterns leaves in float."""

import numpy as np
import pytest

from quantization.exclusion import exclude, exclusion_file, matches
from quantization.modes import all_quantizers, enabled_quantizers, get_mode
from quantization.ranges import calibration_report
from twinquant.errors import UserError

LAYERS = 12
GELU_INPUT = "bert/encoder/layer_{}/output/dense/input_quantizer"


@pytest.mark.parametrize(
    ("pattern", "scope", "expected"),
    [
        pytest.param("layer_1", GELU_INPUT.format(1), True, id="a-part"),
        pytest.param("layer_1", GELU_INPUT.format(11), False, id="not-the-start-of-a-part"),
        pytest.param("layer_1*", GELU_INPUT.format(11), True, id="star"),
        pytest.param("layer_?", GELU_INPUT.format(11), False, id="question-mark-is-one-character"),
        pytest.param("layer_*/output/dense", "bert/encoder/layer_0/attention/output/dense/input_quantizer", False,
                     id="star-stops-at-a-slash"),
        pytest.param("layer_**/output/dense", "bert/encoder/layer_0/attention/output/dense/input_quantizer", True,
                     id="two-stars-do-not"),
        pytest.param(GELU_INPUT.format(3), GELU_INPUT.format(3), True, id="whole-scope"),
        pytest.param("/layer_3/", GELU_INPUT.format(3), True, id="slashes-at-the-ends"),
        pytest.param("layer.3", GELU_INPUT.format(3), False, id="no-regular-expression"),
    ],
)  # fmt: skip
def test_matches(pattern, scope, expected):
    assert matches(pattern, scope) is expected


def test_exclude_takes_off_what_the_patterns_name_and_nothing_else():
    mode = get_mode("ft2")
    without = exclude(mode, ["layer_*/output/dense/aftergemm_quantizer", "layer_11"], LAYERS)
    gone = set(enabled_quantizers(LAYERS, mode)) - set(enabled_quantizers(LAYERS, without))
    expected = {f"bert/encoder/layer_{layer}/output/dense/aftergemm_quantizer" for layer in range(LAYERS)}
    expected |= {scope for scope in enabled_quantizers(LAYERS, mode) if "/layer_11/" in scope}
    assert gone == expected == without.excluded


def test_patterns_from_a_file_with_comments(tmp_path):
    scopes = [GELU_INPUT.format(layer) for layer in (2, 5)]
    path = tmp_path / "exclude.txt"
    path.write_text(exclusion_file(scopes, ["F1 80.1", "made by hand"]) + "\n layer_0 # the first layer\n")
    mode = exclude(get_mode("ft1"), [str(path)], LAYERS)
    in_first = {scope for scope in enabled_quantizers(LAYERS, get_mode("ft1")) if "/layer_0/" in scope}
    assert mode.excluded == in_first | set(scopes)


@pytest.mark.parametrize(
    ("pattern", "mode"),
    [
        pytest.param("layer_12", "ft1", id="layer-that-is-not-there"),
        pytest.param("aftergemm_quantizer", "ft1", id="quantizer-that-the-mode-leaves-off"),
        pytest.param("no-such-file.txt", "ft2", id="missing-file"),
    ],
)
def test_a_pattern_without_a_quantizer_is_an_error(pattern, mode):
    with pytest.raises(UserError, match=f"'{pattern}', which is no file either, matches no quantizer.* mode {mode}"):
        exclude(get_mode(mode), [pattern], LAYERS)


def test_a_bad_line_of_a_file_is_named(tmp_path):
    path = tmp_path / "exclude.txt"
    path.write_text("layer_0\nlayer_77\n")
    with pytest.raises(UserError, match=r"line 2 of .*exclude.txt: the pattern 'layer_77' matches no quantizer"):
        exclude(get_mode("ft1"), [str(path)], LAYERS)


def test_a_file_of_bytes_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        exclude(get_mode("ft1"), [str(path)], LAYERS)


def test_calibration_report_tells_what_was_excluded():
    mode = exclude(get_mode("ft1"), ["layer_0/output/dense/input_quantizer"], 1)
    ranges = {scope: np.float32(1.0) for scope in all_quantizers(1)}
    report = calibration_report(ranges, {}, {}, 1, mode)
    assert report["quant_exclude"] == [GELU_INPUT.format(0)]
    assert not report["quantizers"][GELU_INPUT.format(0)]["enabled"]
    assert report["quantizers"]["bert/encoder/layer_0/intermediate/dense/input_quantizer"]["enabled"]
