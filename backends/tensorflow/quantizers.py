"""Fake quantization in TensorFlow, equal to quantization/numerics.py to the bit."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from backends.quantization import QuantizationState, constants_of
from quantization.numerics import ZERO_AMAX, QuantizerSettings


class Quantizer:
    """One enabled quantizer: its constants, and the fake quantization of a tensor."""

    def __init__(self, settings: QuantizerSettings, amax: np.ndarray, device: str) -> None:
        """amax: float32, () or (channels,) along the output axis of a kernel."""
        self.straight_through = settings.straight_through
        self.key = (settings, amax.tobytes())  # equal keys give equal results
        self.qmin, self.qmax = np.float32(settings.qmin), np.float32(settings.qmax)
        self.constants = constants_of(settings, amax)
        divisor, scale, lowest, amax = self.constants
        self.divisor, self.scale = self._constant(divisor, device), self._constant(scale, device)
        self.lowest, self.amax = self._constant(lowest, device), self._constant(amax, device)

    def _constant(self, value: np.ndarray, device: str) -> tf.Variable:
        # A variable, not a constant of the graph: Grappler and XLA turn a division by a constant into a multiplication
        # by its reciprocal, which rounds some values to another integer.
        with tf.device(device):
            return tf.Variable(np.asarray(value, np.float32), trainable=False)

    def integers(self, x: tf.Tensor) -> tf.Tensor:
        """q = clip(rint(x / divisor), qmin, qmax), float32."""
        return tf.clip_by_value(tf.math.rint(x / self.divisor), self.qmin, self.qmax)

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        return self._straight_through(x) if self.straight_through else self._fake_quantize(x)

    @property
    def product_scale(self) -> tf.Tensor:
        """The scale as a factor of a product's last axis."""
        return tf.convert_to_tensor(self.scale)

    @tf.custom_gradient
    def _fake_quantize(self, x: tf.Tensor):
        """y = clip(rint(x / divisor), qmin, qmax) * scale; the gradient passes where lowest <= x <= amax."""

        def backward(gradient: tf.Tensor) -> tf.Tensor:
            return gradient * tf.cast((x >= self.lowest) & (x <= self.amax), tf.float32)

        return self.integers(x) * self.scale, backward

    @tf.custom_gradient
    def _straight_through(self, x: tf.Tensor):
        """y = clip(rint(x / divisor), qmin, qmax) * scale; the gradient passes unchanged, also where values clip."""
        return self.integers(x) * self.scale, lambda gradient: gradient


class FollowingQuantizer(Quantizer):
    """One quantizer per tensor whose range is set anew for every tensor; the gradient passes it unchanged."""

    def __init__(self, settings: QuantizerSettings, device: str) -> None:
        self.straight_through = True
        self.key = settings
        self.qmin, self.qmax = np.float32(settings.qmin), np.float32(settings.qmax)
        self.levels = self._constant(np.float32(settings.qmax), device)

    def set_range(self, amax: tf.Tensor) -> None:
        """amax: float32, shape ()."""
        scale, is_zero = amax / self.levels, amax < ZERO_AMAX
        self.divisor = tf.where(is_zero, np.float32(np.inf), scale)
        self.scale = tf.where(is_zero, np.float32(0.0), scale)


class AveragingQuantizer(FollowingQuantizer):
    """One quantizer whose range is a moving average of the largest magnitudes it is shown."""

    def __init__(self, settings: QuantizerSettings, amax: np.ndarray, decay: float, device: str) -> None:
        """amax: float32, shape (); NaN: the first magnitude takes its place."""
        super().__init__(settings, device)
        self.key = (settings, amax.tobytes())  # those shown the same tensors from the same amax on stay equal
        self.rate = np.float32(1.0 - decay)
        self.average = self._constant(amax, device)

    def set_average(self, amax: np.ndarray) -> None:
        self.average.assign(amax)

    def move(self, largest: tf.Tensor) -> None:
        """average -= (1 - decay) * (average - largest)"""
        moved = self.average - self.rate * (self.average - largest)
        self.average.assign(tf.where(tf.math.is_nan(self.average), largest, moved))


class Quantization(QuantizationState):
    """The quantizers of a model."""

    channel_axis = 1

    def fixed(self, settings: QuantizerSettings, amax: np.ndarray) -> Quantizer:
        return Quantizer(settings, amax, self.device)

    def following(self, settings: QuantizerSettings) -> FollowingQuantizer:
        return FollowingQuantizer(settings, self.device)

    def averaging(self, settings: QuantizerSettings, amax: np.ndarray, decay: float) -> AveragingQuantizer:
        return AveragingQuantizer(settings, amax, decay, self.device)

    def tensor(self, parameter: tf.Variable) -> tf.Tensor:
        return tf.convert_to_tensor(parameter)

    def largest(self, x: tf.Tensor) -> tf.Tensor:
        return tf.stop_gradient(tf.reduce_max(tf.abs(x)))

    def array(self, x: tf.Tensor) -> np.ndarray:
        return x.numpy()

    def stack(self, scalars: Sequence[tf.Variable]) -> np.ndarray:
        return tf.stack([tf.convert_to_tensor(scalar) for scalar in scalars]).numpy()
