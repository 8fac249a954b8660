"""Fake quantization in TensorFlow, equal to quantization/numerics.py to the bit, and the quantizers' switch."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from quantization.histogram import Observer
from quantization.modes import Mode, enabled_quantizers, feeds_product
from quantization.numerics import ZERO_AMAX, QuantizerSettings, check_amax, scale_of


class Quantizer:
    """One enabled quantizer: its constants, and the fake quantization of a tensor."""

    def __init__(self, settings: QuantizerSettings, amax: np.ndarray, device: str) -> None:
        """amax: float32, () or (channels,) along the output axis of a kernel."""
        self.key = (settings, amax.tobytes())  # equal keys give equal results
        self.per_channel = settings.axis is not None
        self.qmin, self.qmax = np.float32(settings.qmin), np.float32(settings.qmax)
        scale = np.asarray(scale_of(amax, settings), np.float32)
        if settings.fixed_scale is not None:
            amax = np.float32(settings.qmax) * scale
        lowest = -amax if settings.signed else np.zeros_like(amax)
        # An all-zero range gives q = 0 and y = 0: divide by infinity, multiply by zero.
        is_zero = amax < ZERO_AMAX
        self.divisor = self._constant(np.where(is_zero, np.float32(np.inf), scale), device)
        self.scale = self._constant(np.where(is_zero, np.float32(0.0), scale), device)
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
        return self._fake_quantize(x)

    @tf.custom_gradient
    def _fake_quantize(self, x: tf.Tensor):
        """y = clip(rint(x / divisor), qmin, qmax) * scale; the gradient passes where lowest <= x <= amax."""

        def backward(gradient: tf.Tensor) -> tf.Tensor:
            return gradient * tf.cast((x >= self.lowest) & (x <= self.amax), tf.float32)

        return self.integers(x) * self.scale, backward


class Quantization:
    """The state of all quantizers of a model: off, fake-quantizing, or showing what they see to an observer."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.quantizers: dict[str, Quantizer] = {}
        self.exact = False  # see Backend.predict
        self.observer: Observer | None = None
        self.lengths: np.ndarray | None = None  # of the batch that is observed; None: padding counts

    def configure(self, mode: Mode | None, ranges: Mapping[str, np.ndarray], num_hidden_layers: int) -> None:
        """Turns on the quantizers of `mode` with their amax, or all off."""
        self.quantizers = {}
        if mode is not None:
            for scope, settings in enabled_quantizers(num_hidden_layers, mode).items():
                # At a fixed scale the range is known, and none is stored.
                amax = np.ones((), np.float32) if settings.fixed_scale else check_amax(ranges.get(scope), scope)
                self.quantizers[scope] = Quantizer(settings, amax, self.device)

    def __call__(
        self, x: tf.Tensor, scopes: Sequence[str], sequence_axes: tuple[int, ...] = (1,)
    ) -> tuple[tf.Tensor, ...]:
        """Passes one tensor through the quantizers of several consumers; equal quantizers compute once.

        Args:
            x: float32, any shape; `sequence_axes` are the axes that run over positions.
            scopes: the quantizers that see x, one per consumer.

        Returns:
            One tensor per scope: fake-quantized, or x itself where the quantizer is off. In exact arithmetic an
            operand of a matrix product comes as its integers, and `scaled` multiplies the product by the scales.
        """
        if self.observer is not None:
            self.observer.observe(scopes, x.numpy(), self.lengths, sequence_axes)
            return (x,) * len(scopes)
        done: dict = {}
        outputs = []
        for scope in scopes:
            quantizer = self.quantizers.get(scope)
            if quantizer is None:
                outputs.append(x)
                continue
            as_integers = self.exact and feeds_product(scope)
            key = (quantizer.key, as_integers)
            if key not in done:
                done[key] = quantizer.integers(x) if as_integers else quantizer(x)
            outputs.append(done[key])
        return tuple(outputs)

    def weight(self, kernel: tf.Tensor, scope: str) -> tf.Tensor:
        """The kernel, fake-quantized if its quantizer is on; its integers in exact arithmetic."""
        quantizer = None if self.observer is not None else self.quantizers.get(scope)
        if quantizer is None:
            return kernel
        kernel = tf.convert_to_tensor(kernel)
        return quantizer.integers(kernel) if self.exact else quantizer(kernel)

    def scaled(self, product: tf.Tensor, scopes: Sequence[str]) -> tf.Tensor:
        """In exact arithmetic a product of integers times the scales of its operands' quantizers, else the product."""
        if not self.exact or self.observer is not None:
            return product
        scales = [tf.convert_to_tensor(self.quantizers[scope].scale) for scope in scopes if scope in self.quantizers]
        return product * math.prod(scales) if scales else product
