"""Fake quantization in PyTorch, equal to quantization/numerics.py to the bit, and the quantizers' switch."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from quantization.histogram import Observer
from quantization.modes import Mode, enabled_quantizers, feeds_product
from quantization.numerics import ZERO_AMAX, QuantizerSettings, check_amax, scale_of


class FakeQuantize(torch.autograd.Function):
    """y = clip(rint(x / divisor), qmin, qmax) * scale; the gradient passes where lowest <= x <= amax."""

    @staticmethod
    def forward(ctx, x, quantizer):
        ctx.save_for_backward(x)
        ctx.quantizer = quantizer
        return quantizer.integers(x).mul_(quantizer.scale)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        quantizer = ctx.quantizer
        if quantizer.per_channel:
            return gradient * ((x >= quantizer.lowest) & (x <= quantizer.amax)), None
        # hardtanh's gradient is zero from the bounds on; bounds one float further out make that lowest <= x <= amax, in
        # one pass over memory instead of three.
        return torch.ops.aten.hardtanh_backward(gradient, x, quantizer.below_lowest, quantizer.above_amax), None


class Quantizer:
    """One enabled quantizer: its constants, and the fake quantization of a tensor."""

    def __init__(self, settings: QuantizerSettings, amax: np.ndarray, device: torch.device) -> None:
        """amax: float32, () or (channels,) along the output axis of a kernel."""
        self.key = (settings, amax.tobytes())  # equal keys give equal results
        self.per_channel = settings.axis is not None
        self.qmin, self.qmax = float(settings.qmin), float(settings.qmax)
        scale = np.asarray(scale_of(amax, settings), np.float32)
        if settings.fixed_scale is not None:
            amax = np.float32(settings.qmax) * scale
        lowest = -amax if settings.signed else np.zeros_like(amax)
        # An all-zero range gives q = 0 and y = 0: divide by infinity, multiply by zero.
        is_zero = amax < ZERO_AMAX
        self.divisor = self._constant(np.where(is_zero, np.float32(np.inf), scale), device)
        self.scale = self._constant(np.where(is_zero, np.float32(0.0), scale), device)
        if self.per_channel:
            self.lowest, self.amax = self._constant(lowest, device), self._constant(amax, device)
        else:
            self.below_lowest = float(np.nextafter(np.float32(lowest), np.float32(-np.inf)))
            self.above_amax = float(np.nextafter(np.float32(amax), np.float32(np.inf)))

    def _constant(self, value: np.ndarray, device: torch.device) -> torch.Tensor:
        # A tensor on the device, not a Python number: with a number CUDA would multiply by the reciprocal.
        value = np.asarray(value, np.float32)
        # Kernels are [out, in] here: the channels run along the first axis.
        return torch.from_numpy(value[:, None].copy() if self.per_channel else value.copy()).to(device)

    def integers(self, x: torch.Tensor) -> torch.Tensor:
        """q = clip(rint(x / divisor), qmin, qmax), float32."""
        q = x / self.divisor  # a new tensor; the rest works in it
        return q.round_().clamp_(self.qmin, self.qmax)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return FakeQuantize.apply(x, self)


class Quantization:
    """The state of all quantizers of a model: off, fake-quantizing, or showing what they see to an observer."""

    def __init__(self, device: torch.device) -> None:
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

    @property
    def active(self) -> bool:
        """Whether any tensor inside the encoder must be visible (so no fused attention)."""
        return bool(self.quantizers) or self.observer is not None

    def __call__(
        self, x: torch.Tensor, scopes: Sequence[str], sequence_axes: tuple[int, ...] = (1,)
    ) -> tuple[torch.Tensor, ...]:
        """Passes one tensor through the quantizers of several consumers; equal quantizers compute once.

        Args:
            x: float32, any shape; `sequence_axes` are the axes that run over positions.
            scopes: the quantizers that see x, one per consumer.

        Returns:
            One tensor per scope: fake-quantized, or x itself where the quantizer is off. In exact arithmetic an
            operand of a matrix product comes as its integers, and `scaled` multiplies the product by the scales.
        """
        if self.observer is not None:
            self.observer.observe(scopes, x.detach().cpu().numpy(), self.lengths, sequence_axes)
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

    def weight(self, kernel: torch.Tensor, scope: str) -> torch.Tensor:
        """The kernel, fake-quantized if its quantizer is on; its integers in exact arithmetic."""
        quantizer = None if self.observer is not None else self.quantizers.get(scope)
        if quantizer is None:
            return kernel
        return quantizer.integers(kernel) if self.exact else quantizer(kernel)

    def scaled(self, product: torch.Tensor, scopes: Sequence[str]) -> torch.Tensor:
        """In exact arithmetic a product of integers times the scales of its operands' quantizers, else the product."""
        if not self.exact or self.observer is not None:
            return product
        scales = [self.quantizers[scope].scale.flatten() for scope in scopes if scope in self.quantizers]
        return product * math.prod(scales) if scales else product
