"""Fake quantization in PyTorch, equal to quantization/numerics.py to the bit, and the quantizers' switch."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from quantization.histogram import Observer
from quantization.modes import Mode, enabled_quantizers
from quantization.numerics import ZERO_AMAX, QuantizerSettings, check_amax, scale_of


class FakeQuantize(torch.autograd.Function):
    """y = clip(rint(x / divisor), qmin, qmax) * scale; the gradient passes where lowest <= x <= amax."""

    @staticmethod
    def forward(ctx, x, quantizer):
        ctx.save_for_backward(x)
        ctx.quantizer = quantizer
        y = x / quantizer.divisor  # a new tensor; the rest works in it
        return y.round_().clamp_(quantizer.qmin, quantizer.qmax).mul_(quantizer.scale)

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

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return FakeQuantize.apply(x, self)


class Quantization:
    """The state of all quantizers of a model: off, fake-quantizing, or showing what they see to an observer."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.quantizers: dict[str, Quantizer] = {}
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
            One tensor per scope: fake-quantized, or x itself where the quantizer is off.
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
            if quantizer.key not in done:
                done[quantizer.key] = quantizer(x)
            outputs.append(done[quantizer.key])
        return tuple(outputs)

    def weight(self, kernel: torch.Tensor, scope: str) -> torch.Tensor:
        """The kernel, fake-quantized if its quantizer is on."""
        quantizer = None if self.observer is not None else self.quantizers.get(scope)
        return kernel if quantizer is None else quantizer(kernel)
