"""The arithmetic of fake quantization against hand-made cases, a float64 reference and onnxruntime."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from quantization.numerics import (
    ZERO_AMAX,
    QuantizerSettings,
    dequantize,
    fake_quantize,
    gradient_mask,
    quantize,
    scale_of,
)
from twinquant.errors import UserError

ACTIVATION = QuantizerSettings()
WEIGHT = QuantizerSettings(narrow_range=True)
PER_CHANNEL = QuantizerSettings(narrow_range=True, axis=1)
PROBABILITY = QuantizerSettings(signed=False, fixed_scale=1 / 255)


@pytest.mark.parametrize(
    ("settings", "qmin", "qmax"),
    [
        pytest.param(ACTIVATION, -128, 127, id="activation"),
        pytest.param(WEIGHT, -127, 127, id="weight"),
        pytest.param(PROBABILITY, 0, 255, id="unsigned"),
        pytest.param(QuantizerSettings(signed=False, narrow_range=True), 0, 255, id="unsigned-narrow"),
        pytest.param(QuantizerSettings(num_bits=4), -8, 7, id="4-bit"),
        pytest.param(QuantizerSettings(num_bits=4, narrow_range=True), -7, 7, id="4-bit-narrow"),
    ],
)
def test_integer_range(settings, qmin, qmax):
    assert (settings.qmin, settings.qmax) == (qmin, qmax)
    extremes = np.array([-np.inf, -1e30, 1e30, np.inf], np.float32)
    assert quantize(extremes, 1.0, settings).tolist() == [qmin, qmin, qmax, qmax]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (0.5, 0),
        (1.5, 2),
        (2.5, 2),
        (-0.5, 0),
        (-1.5, -2),
        (-2.5, -2),
        (126.5, 126),
        (0.49, 0),
        (0.51, 1),
        (-127.5, -128),
    ],
)
def test_ties_round_to_even(steps, expected):
    # amax 127 makes the scale exactly 1.
    assert quantize(np.float32(steps), 127.0, ACTIVATION) == expected


def test_scale_is_one_float32_division():
    amax = np.float32(0.3)
    scale = scale_of(amax, ACTIVATION)
    assert scale.dtype == np.float32 and scale.shape == ()
    assert scale == np.float32(float(amax) / 127)  # float64 division of two float32 rounds to the same float32
    assert scale_of(None, PROBABILITY) == np.float32(1 / 255)


def test_division_not_reciprocal():
    # With this scale, multiplying by the float32 reciprocal puts some values on the other side of a tie.
    amax = np.float32(3.0)
    scale = np.float32(amax / np.float32(127))
    x = (np.arange(-127, 127, dtype=np.float32) + np.float32(0.5)) * scale
    x = np.concatenate([x, np.nextafter(x, np.float32(9)), np.nextafter(x, np.float32(-9))])
    divided = np.rint(x / scale)
    assert (divided != np.rint(x * (np.float32(1) / scale))).any()
    assert np.array_equal(quantize(x, amax, ACTIVATION), divided.astype(np.int32))


def test_dtypes_and_shapes():
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4)
    q = quantize(x, 1.0, ACTIVATION)
    y = fake_quantize(x, 1.0, ACTIVATION)
    assert q.dtype == np.int32 and q.shape == x.shape
    assert y.dtype == np.float32 and y.shape == x.shape
    assert np.array_equal(y, dequantize(q, 1.0, ACTIVATION))
    assert gradient_mask(x, 1.0).dtype == bool


def test_negative_zero_becomes_zero():
    y = fake_quantize(np.array([-0.0, -0.001, 0.0], np.float32), 1.0, ACTIVATION)
    assert not np.signbit(y).any() and not y.any()


@pytest.mark.parametrize("amax", [0.0, 2.0**-149, np.nextafter(np.float32(ZERO_AMAX), np.float32(0))])
def test_tiny_amax_gives_zero(amax):
    x = np.array([0.0, 1.0, -5.0, 1e-8, np.inf], np.float32)
    assert not quantize(x, amax, ACTIVATION).any()
    assert np.array_equal(fake_quantize(x, amax, ACTIVATION), np.zeros(5, np.float32))


def test_smallest_amax_that_counts():
    x = np.float32(ZERO_AMAX)
    assert quantize(x, ZERO_AMAX, ACTIVATION) == 127


def test_zero_tensor():
    assert np.array_equal(fake_quantize(np.zeros((2, 3)), 0.0, ACTIVATION), np.zeros((2, 3)))


@pytest.mark.parametrize("axis", [0, 1, 2, -1], ids=lambda axis: f"axis{axis}")
def test_per_channel_equals_each_channel_alone(axis):
    x = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    amax = np.linspace(0, 2, x.shape[axis]).astype(np.float32)  # the first channel has amax 0
    settings = QuantizerSettings(narrow_range=True, axis=axis)
    y, mask = fake_quantize(x, amax, settings), gradient_mask(x, amax, settings)
    for channel, limit in enumerate(amax):
        one = x.take(channel, axis=axis)
        assert np.array_equal(y.take(channel, axis=axis), fake_quantize(one, limit, WEIGHT))
        assert np.array_equal(mask.take(channel, axis=axis), np.abs(one) <= limit)


def test_gradient_passes_at_amax_itself():
    x = np.array([-1.1, -1.0, 0.0, 1.0, 1.1], np.float32)
    assert gradient_mask(x, 1.0).tolist() == [False, True, True, True, False]


def test_probabilities():
    step = np.float32(1 / 255)
    x = np.array([-0.1, -0.0, 0.0, 0.5 / 255, 1.5 / 255, 0.5, 1.0, 1.1], np.float32)
    q = quantize(x, None, PROBABILITY)
    # float32(1/255) is a little above 1/255, hence 0.5 is a little below 127.5 steps.
    assert q.tolist() == [0, 0, 0, 0, 2, 127, 255, 255]
    assert np.array_equal(fake_quantize(x, None, PROBABILITY), q.astype(np.float32) * step)
    # 1.0, the largest probability, still learns.
    assert gradient_mask(x, None, PROBABILITY).tolist() == [False, True, True, True, True, True, True, False]


def test_fixed_scale_does_not_look_at_amax():
    x = np.linspace(0, 1, 100, dtype=np.float32)
    assert np.array_equal(quantize(x, np.nan, PROBABILITY), quantize(x, None, PROBABILITY))


@pytest.mark.parametrize("settings", [ACTIVATION, WEIGHT], ids=["activation", "weight"])
def test_against_float64(settings):
    x = np.random.default_rng(1).standard_normal(20000).astype(np.float32)
    amax = np.float32(2.7)
    steps = x.astype(np.float64) / (float(amax) / 127)
    expected = np.clip(np.rint(steps), settings.qmin, settings.qmax)
    q = quantize(x, amax, settings)
    # float32 may decide otherwise only next to a tie: its quotient is off by at most 2 * 2**-24 * 128 = 1.5e-5 steps.
    differs = q != expected
    assert np.abs(np.abs(steps[differs] % 1) - 0.5).max(initial=0) < 2e-5
    # scale and product are rounded once each.
    np.testing.assert_allclose(fake_quantize(x, amax, settings), q * (float(amax) / 127), rtol=2.0**-22, atol=0)


@pytest.mark.parametrize(
    ("settings", "amax", "kind"),
    [
        pytest.param(ACTIVATION, 2.9, "INT8", id="int8"),
        pytest.param(PROBABILITY, None, "UINT8", id="uint8-fixed"),
    ],
)
def test_same_integers_as_onnxruntime(settings, amax, kind):
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    helper, types = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [helper.make_node("QuantizeLinear", ["x", "scale", "zero_point"], ["q"])],
        "quantize",
        [helper.make_tensor_value_info("x", types.FLOAT, [None])],
        [helper.make_tensor_value_info("q", getattr(types, kind), [None])],
        [
            helper.make_tensor("scale", types.FLOAT, [], [float(scale_of(amax, settings))]),
            helper.make_tensor("zero_point", getattr(types, kind), [], [0]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    scale = scale_of(amax, settings)
    ties = (np.arange(-300, 300, dtype=np.float32) + np.float32(0.5)) * scale
    random = np.random.default_rng(2).standard_normal(5000).astype(np.float32)
    x = np.concatenate([ties, np.nextafter(ties, np.float32(9)), np.nextafter(ties, np.float32(-9)), random])
    (expected,) = session.run(None, {"x": x})
    assert np.array_equal(quantize(x, amax, settings), expected.astype(np.int32))


values = hnp.arrays(np.float32, st.integers(0, 30), elements=st.floats(-(2.0**70), 2.0**70, width=32))
ranges = st.floats(2.0**-24, 2.0**60, width=32)
kinds = st.sampled_from(
    [ACTIVATION, WEIGHT, QuantizerSettings(signed=False), QuantizerSettings(num_bits=5), PROBABILITY]
)


@given(values, ranges, kinds)
def test_properties(x, amax, settings):
    q = quantize(x, amax, settings)
    assert ((q >= settings.qmin) & (q <= settings.qmax)).all()

    y = fake_quantize(x, amax, settings)
    assert fake_quantize(y, amax, settings).tobytes() == y.tobytes()

    # Half a step, plus the rounding of scale, quotient and product: less than 3 units in the last place of amax.
    inside = gradient_mask(x, amax, settings)
    scale = float(scale_of(amax, settings))
    error = np.abs(y[inside].astype(np.float64) - x[inside])
    assert (error <= scale / 2 + 3 * 2.0**-23 * scale * settings.qmax).all()


@given(ranges, st.sampled_from([ACTIVATION, WEIGHT]))
def test_amax_itself_is_the_largest_integer(amax, settings):
    assert quantize(np.float32([amax, -amax]), amax, settings).tolist() == [127, -127]


@pytest.mark.parametrize(
    ("amax", "settings", "words"),
    [
        pytest.param(None, ACTIVATION, "no amax", id="missing"),
        pytest.param(-1.0, ACTIVATION, "negative amax -1.0", id="negative"),
        pytest.param(np.nan, ACTIVATION, "amax nan", id="nan"),
        pytest.param(np.inf, ACTIVATION, "amax inf", id="infinite"),
        pytest.param(1e300, ACTIVATION, "amax inf", id="beyond-float32"),
        pytest.param([1.0, np.nan, 1.0], PER_CHANNEL, "amax nan", id="one-channel-nan"),
        pytest.param([1.0, 2.0], PER_CHANNEL, r"shape \(2,\), \(3,\) was expected", id="channel-count"),
        pytest.param(1.0, PER_CHANNEL, r"shape \(\), \(3,\) was expected", id="scalar-for-channels"),
        pytest.param([1.0, 2.0, 3.0], ACTIVATION, r"shape \(3,\), one number", id="channels-for-scalar"),
        pytest.param([1.0], QuantizerSettings(axis=5), "axis 5", id="axis-out-of-range"),
    ],
)
@pytest.mark.parametrize("function", [quantize, dequantize, fake_quantize, gradient_mask])
def test_errors_name_the_quantizer(function, amax, settings, words):
    with pytest.raises(UserError, match=f"^layer_3/input_quantizer .*{words}"):
        function(np.ones((2, 3), np.float32), amax, settings, "layer_3/input_quantizer")


def test_nan_in_the_tensor_is_an_error():
    with pytest.raises(UserError, match="layer_3/input_quantizer .*NaN"):
        quantize([1.0, np.nan], 1.0, ACTIVATION, "layer_3/input_quantizer")


@pytest.mark.parametrize("wrong", [{"num_bits": 1}, {"num_bits": 17}, {"fixed_scale": 0.0}, {"fixed_scale": np.inf}])
def test_impossible_settings(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        QuantizerSettings(**wrong)
