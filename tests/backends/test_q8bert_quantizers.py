"""Quantizers whose range follows their tensor: arithmetic, gradient and moving average, against NumPy to the bit."""

import importlib

import numpy as np
import pytest

from quantization.modes import q8bert_mode
from quantization.numerics import ZERO_AMAX, QuantizerSettings, fake_quantize, quantize

SETTINGS = q8bert_mode().activation


class Framework:
    """The few operations that the tests need, in either framework."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.quantizers = importlib.import_module(f"backends.{name}.quantizers")
        if name == "pytorch":
            import torch

            self.library, self.device = torch, torch.device("cpu")
        else:
            import tensorflow

            self.library, self.device = tensorflow, "/CPU:0"
        self.quantization = self.quantizers.Quantization(self.device)

    def tensor(self, array):
        array = np.asarray(array, np.float32)
        return self.library.tensor(array) if self.name == "pytorch" else self.library.constant(array)

    def quantized(self, quantizer, x, upstream=None):
        """y, the integers, and the gradient of sum(y * upstream)."""
        upstream = np.ones_like(x) if upstream is None else upstream
        if self.name == "pytorch":
            tensor = self.tensor(x).requires_grad_()
            y = quantizer(tensor)
            y.backward(self.tensor(upstream))
            return y.detach().numpy(), quantizer.integers(tensor.detach()).numpy(), tensor.grad.numpy()
        tensor = self.tensor(x)

        @self.library.function
        def run(tensor):  # as the model runs it: in a graph
            with self.library.GradientTape() as tape:
                tape.watch(tensor)
                y = quantizer(tensor)
            return y, quantizer.integers(tensor), tape.gradient(y, tensor, self.tensor(upstream))

        return [array.numpy() for array in run(tensor)]


@pytest.fixture
def framework(backend_name):
    return Framework(backend_name)


def following(framework, amax):
    quantizer = framework.quantization.following(SETTINGS)
    quantizer.set_range(framework.tensor(amax))
    return quantizer


@pytest.mark.parametrize("step", [1.0, 0.5, 2.0**-9], ids=["integers", "halves", "small"])
def test_what_is_on_the_grid_already_passes_exactly(framework, step):
    x = np.arange(-127, 128).astype(np.float32) * np.float32(step)
    y, q, _ = framework.quantized(following(framework, np.abs(x).max()), x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(q, np.arange(-127, 128))


@pytest.mark.parametrize("amax", [0.37, 1.0, 2.9, 118.3])
def test_equals_numerics_to_the_bit_and_never_gives_minus_128(framework, amax):
    rng = np.random.default_rng(0)
    amax = np.float32(amax)
    steps = (np.arange(-130, 130) + 0.5) * (float(amax) / 127)
    borders = np.concatenate([steps, np.nextafter(steps.astype(np.float32), np.float32(9e9))])
    x = np.concatenate([borders, 2 * amax * rng.standard_normal(2000), [-1e30, 1e30]]).astype(np.float32)
    upstream = rng.standard_normal(x.shape).astype(np.float32)
    y, q, gradient = framework.quantized(following(framework, amax), x, upstream)
    np.testing.assert_array_equal(y, fake_quantize(x, amax, SETTINGS))
    np.testing.assert_array_equal(q, quantize(x, amax, SETTINGS))
    assert q.min() == -127
    # Unchanged, also where |x| > amax: nothing is masked.
    np.testing.assert_array_equal(gradient, upstream)


def test_a_fixed_range_can_pass_the_gradient_of_clipped_values_too(framework):
    quantizer = framework.quantization.fixed(QuantizerSettings(straight_through=True), np.float32(1))
    y, _, gradient = framework.quantized(quantizer, np.float32([-3, 0.2, 3]))
    assert y[0] < -1 and y[2] == 1
    np.testing.assert_array_equal(gradient, [1, 1, 1])


@pytest.mark.parametrize("amax", [0.0, np.nextafter(np.float32(ZERO_AMAX), np.float32(0))], ids=["zero", "tiny"])
def test_all_zero_tensors_do_not_divide_by_zero(framework, amax):
    y, q, gradient = framework.quantized(following(framework, amax), np.float32([0, amax, -amax, 5]))
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_array_equal(q, 0)
    np.testing.assert_array_equal(gradient, 1)


def test_the_largest_magnitude_of_a_tensor_is_exact(framework):
    rng = np.random.default_rng(1)
    for x in (rng.standard_normal((7, 33)), -np.abs(rng.standard_normal(9)), np.zeros(3)):
        x = x.astype(np.float32)
        assert framework.quantization.array(framework.quantization.largest(framework.tensor(x))) == np.abs(x).max()


@pytest.mark.parametrize("first", [np.nan, 3.0], ids=["begins-with-the-first-value", "goes-on"])
def test_the_moving_average_follows_its_recurrence(framework, first):
    decay, rng = 0.9999, np.random.default_rng(2)
    quantizer = framework.quantization.averaging(SETTINGS, np.float32(first), decay)
    expected = None if np.isnan(first) else float(first)
    for largest in rng.uniform(0.5, 4, 30).astype(np.float32):
        quantizer.move(framework.tensor(largest))
        expected = float(largest) if expected is None else expected - (1 - decay) * (expected - float(largest))
        found = float(framework.quantization.stack([quantizer.average])[0])
        assert found == pytest.approx(expected, rel=1e-6)  # float32 against float64


def test_one_average_per_consumer_and_one_computation(framework):
    """Query, key and value see the same tensor: each keeps a range, and what is equal is computed once."""
    quantization = framework.quantization
    quantization.configure(q8bert_mode(ema_decay=0.5), {}, 1)
    quantization.learning = True
    scopes = [f"bert/encoder/layer_0/attention/self/{name}/input_quantizer" for name in ("query", "key", "value")]
    for largest in (4.0, 2.0):
        x = framework.tensor(np.linspace(-largest, 1, 50))
        query, key, value = quantization(x, scopes)
        assert query is key and key is value
    assert {scope: float(amax) for scope, amax in quantization.ranges().items()} == dict.fromkeys(scopes, 3.0)
    np.testing.assert_array_equal(quantization.array(query), fake_quantize(quantization.array(x), 3.0, SETTINGS))
