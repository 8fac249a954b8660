"""Each backend's fake quantization and its gradient against quantization/numerics.py, to the bit."""

import importlib
from dataclasses import replace

import numpy as np
import pytest

from quantization.modes import custom_mode
from quantization.numerics import ZERO_AMAX, QuantizerSettings, fake_quantize, gradient_mask, quantize, scale_of
from twinquant.errors import UserError

ACTIVATION = QuantizerSettings()
WEIGHT = QuantizerSettings(narrow_range=True)
CHANNELS = QuantizerSettings(narrow_range=True, axis=1)
UNIT = QuantizerSettings(signed=False, fixed_scale=1 / 255)
UNSIGNED = QuantizerSettings(signed=False)
QKV_INPUTS = tuple(f"attention/self/{name}/input_quantizer" for name in ("query", "key", "value"))
FOUR_BITS = QuantizerSettings(num_bits=4)


def run_pytorch(settings, amax, x, upstream):
    import torch

    from backends.pytorch.quantizers import Quantizer

    quantizer = Quantizer(settings, np.asarray(amax, np.float32), torch.device("cpu"))
    # Kernels lie [out, in] in this backend.
    turn = np.transpose if settings.axis is not None else np.asarray
    tensor = torch.tensor(turn(x).copy(), requires_grad=True)
    y = quantizer(tensor)
    y.backward(torch.tensor(turn(upstream).copy()))
    return turn(y.detach().numpy()), turn(tensor.grad.numpy())


def run_tensorflow(settings, amax, x, upstream, xla=False):
    import tensorflow as tf

    from backends.tensorflow.quantizers import Quantizer

    quantizer = Quantizer(settings, np.asarray(amax, np.float32), "/CPU:0")

    @tf.function(jit_compile=xla)
    def forward_and_backward(x, upstream):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = quantizer(x)
        return y, tape.gradient(y, x, upstream)

    # As the model runs it: in a graph, whose optimizers must not reword the arithmetic.
    y, gradient = forward_and_backward(tf.constant(x), tf.constant(upstream))
    return y.numpy(), gradient.numpy()


RUN = {"pytorch": run_pytorch, "tensorflow": run_tensorflow}


def random_case(rng, settings, amax, size=4096):
    return settings, np.float32(amax), (rng.standard_normal(size) * 1.5 * amax).astype(np.float32)


def borders_case(rng, settings, amax):
    """Values as near to the borders between two integers as float32 has them, where one wrong last bit shows."""
    steps = np.arange(settings.qmin - 2, settings.qmax + 2) + 0.5
    exact = steps * float(scale_of(amax, settings))
    x = exact.astype(np.float32)
    return settings, np.float32(amax), np.concatenate([x, np.nextafter(x, np.float32(9e9)), np.nextafter(x, -x)])


def cases():
    rng = np.random.default_rng(7)
    largest = np.finfo(np.float32).max
    tiny = np.float32(ZERO_AMAX)
    normal = np.finfo(np.float32).tiny  # TensorFlow's kernels take what is smaller for zero
    ties = np.concatenate([np.arange(-130, 130) + 0.5, [0.0, -0.0]]).astype(np.float32)
    edges = np.float32([1.7, -1.7, np.nextafter(np.float32(1.7), 2), np.nextafter(np.float32(1.7), 1), 0, -0.0])
    edges = np.concatenate([edges, -edges, np.float32([largest, -largest, np.inf, -np.inf, normal, -normal])])
    matrix = rng.standard_normal((64, 9)).astype(np.float32)
    per_channel = np.abs(matrix).max(0)
    with_zero = matrix * np.float32([1, 0, 1, 1, 1e-9, 1, 1, 1, 1])
    small = np.float32([0.0, 1e-9, -1e-9, 0.5, -0.5, 3e38])
    yield "random", random_case(rng, ACTIVATION, 2.3)
    yield "random-narrow", random_case(rng, WEIGHT, 0.11)
    yield "random-unsigned", random_case(rng, UNSIGNED, 0.9)
    yield "four-bits", random_case(rng, FOUR_BITS, 5.1)
    yield "probabilities", (UNIT, np.float32(1), rng.random(4096, np.float32))
    yield "probabilities-borders", borders_case(rng, UNIT, 1.0)
    for amax in (0.37, 1.0, 3.3333333, 11.7, 1e-6, 2e30):
        yield f"borders-{amax:.2g}", borders_case(rng, ACTIVATION, amax)
    yield "ties", (ACTIVATION, np.float32(127), ties)
    yield "ties-narrow", (WEIGHT, np.float32(127), ties)
    yield "ties-unsigned", (UNSIGNED, np.float32(255), ties)
    yield "edges", (ACTIVATION, np.float32(1.7), edges)
    yield "edges-narrow", (WEIGHT, np.float32(1.7), edges)
    yield "edges-unsigned", (UNSIGNED, np.float32(1.7), edges)
    yield "per-channel", (CHANNELS, per_channel, matrix)
    yield "per-channel-clipping", (CHANNELS, per_channel * np.float32(0.4), matrix)
    yield "zero-channels", (CHANNELS, np.abs(with_zero).max(0), with_zero)
    yield "zero-range", (ACTIVATION, np.float32(0), small)
    yield "zero-range-unsigned", (UNSIGNED, np.float32(0), small)
    yield "below-smallest-range", (ACTIVATION, np.nextafter(tiny, np.float32(0)), np.append(small, tiny / 2))
    yield "smallest-range", (ACTIVATION, tiny, np.append(small, [tiny, tiny / 2, tiny * 0.003]))


CASES = dict(cases())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_numerics_to_the_bit(backend_name, case):
    settings, amax, x = case
    upstream = np.random.default_rng(0).uniform(0.5, 2.0, x.shape).astype(np.float32)
    y, gradient = RUN[backend_name](settings, amax, x, upstream)
    np.testing.assert_array_equal(y, fake_quantize(x, amax, settings))
    np.testing.assert_array_equal(gradient, upstream * gradient_mask(x, amax, settings))


@pytest.mark.parametrize("name", ["random", "borders-0.37", "borders-3.3", "probabilities-borders", "per-channel"])
def test_xla_equals_numerics_to_the_bit(name):
    pytest.importorskip("tensorflow")
    settings, amax, x = CASES[name]
    y, gradient = run_tensorflow(settings, amax, x, np.ones_like(x), xla=True)
    np.testing.assert_array_equal(y, fake_quantize(x, amax, settings))
    np.testing.assert_array_equal(gradient, gradient_mask(x, amax, settings))


def test_integers_are_the_same_on_both_backends(both_backends):
    rng = np.random.default_rng(1)
    for amax in rng.uniform(0.01, 20, 10).astype(np.float32):
        _, _, x = borders_case(rng, ACTIVATION, amax)
        expected = quantize(x, amax, ACTIVATION)
        for name in both_backends:
            y, _ = RUN[name](ACTIVATION, amax, x, np.ones_like(x))
            integers = np.rint(y / scale_of(amax, ACTIVATION)).astype(np.int32)
            np.testing.assert_array_equal(integers, expected, err_msg=name)


def test_the_gradient_passes_at_amax_exactly(backend_name):
    amax = np.float32(0.3)
    x = np.float32([amax, -amax, np.nextafter(amax, np.float32(1)), -np.nextafter(amax, np.float32(1))])
    _, gradient = RUN[backend_name](WEIGHT, amax, x, np.ones_like(x))
    np.testing.assert_array_equal(gradient, [1, 1, 0, 0])


@pytest.mark.parametrize("settings", [ACTIVATION, UNIT], ids=["signed", "probabilities"])
def test_nan_stays_nan(backend_name, settings):
    """So that a model that has diverged is noticed, not rounded into a number."""
    y, _ = RUN[backend_name](settings, 1.0, np.float32([np.nan, 0.5]), np.ones(2, np.float32))
    np.testing.assert_array_equal(np.isnan(y), [True, False])


def test_one_tensor_for_several_quantizers(backend_name):
    """Consumers with equal ranges share one result; each gets its own where ranges differ, x itself where off."""
    module = importlib.import_module(f"backends.{backend_name}.quantizers")
    if backend_name == "pytorch":
        import torch

        quantization, x = module.Quantization(torch.device("cpu")), torch.linspace(-1, 1, 50)
    else:
        import tensorflow as tf

        quantization, x = module.Quantization("/CPU:0"), tf.linspace(np.float32(-1), np.float32(1), 50)
    scopes = [f"bert/encoder/layer_0/{row}" for row in (*QKV_INPUTS, "attention/output/add_residual_input_quantizer")]
    amax = {scopes[0]: np.float32(0.9), scopes[1]: np.float32(0.9), scopes[2]: np.float32(0.4)}
    quantization.configure(replace(custom_mode(False), enabled=frozenset(QKV_INPUTS)), amax, 1)
    query, key, value, residual = quantization(x, scopes)
    assert query is key and residual is x
    np.testing.assert_array_equal(query.numpy(), fake_quantize(x.numpy(), np.float32(0.9), ACTIVATION))
    np.testing.assert_array_equal(value.numpy(), fake_quantize(x.numpy(), np.float32(0.4), ACTIVATION))
    with pytest.raises(UserError, match="value/input_quantizer has no amax"):
        quantization.configure(
            replace(custom_mode(False), enabled=frozenset(QKV_INPUTS)), dict(list(amax.items())[:2]), 1
        )
    quantization.configure(None, {}, 1)
    assert all(y is x for y in quantization(x, scopes))
