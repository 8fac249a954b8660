"""Fake quantization in PyTorch, equal to quantization/numerics.py to the bit."""

from collections.abc import Sequence

import numpy as np
import torch

from backends.quantization import QuantizationState, constants_of
from quantization.numerics import ZERO_AMAX, QuantizerSettings


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


class StraightThrough(torch.autograd.Function):
    """y = clip(rint(x / divisor), qmin, qmax) * scale; the gradient passes unchanged, also where values clip."""

    @staticmethod
    def forward(ctx, x, quantizer):
        return quantizer.integers(x).mul_(quantizer.scale)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


class Quantizer:
    """One enabled quantizer: its constants, and the fake quantization of a tensor."""

    def __init__(self, settings: QuantizerSettings, amax: np.ndarray, device: torch.device) -> None:
        """amax: float32, () or (channels,) along the output axis of a kernel."""
        self.function = StraightThrough if settings.straight_through else FakeQuantize
        self.key = (settings, amax.tobytes())  # equal keys give equal results
        self.per_channel = settings.axis is not None
        self.qmin, self.qmax = float(settings.qmin), float(settings.qmax)
        self.constants = constants_of(settings, amax)
        divisor, scale, lowest, amax = self.constants
        self.divisor, self.scale = self._constant(divisor, device), self._constant(scale, device)
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
        return self.function.apply(x, self)

    @property
    def product_scale(self) -> torch.Tensor:
        """The scale as a factor of a product's last axis."""
        return self.scale.flatten()


class FollowingQuantizer(Quantizer):
    """One quantizer per tensor whose range is set anew for every tensor; the gradient passes it unchanged."""

    def __init__(self, settings: QuantizerSettings, device: torch.device) -> None:
        self.function = StraightThrough
        self.key = settings
        self.per_channel = False
        self.qmin, self.qmax = float(settings.qmin), float(settings.qmax)
        self.levels = self._constant(np.float32(settings.qmax), device)
        self.nothing = self._constant(np.float32(0.0), device)
        self.infinity = self._constant(np.float32(np.inf), device)

    def set_range(self, amax: torch.Tensor) -> None:
        """amax: float32, shape ()."""
        scale, is_zero = amax / self.levels, amax < ZERO_AMAX
        self.divisor = torch.where(is_zero, self.infinity, scale)
        self.scale = torch.where(is_zero, self.nothing, scale)


class AveragingQuantizer(FollowingQuantizer):
    """One quantizer whose range is a moving average of the largest magnitudes it is shown."""

    def __init__(self, settings: QuantizerSettings, amax: np.ndarray, decay: float, device: torch.device) -> None:
        """amax: float32, shape (); NaN: the first magnitude takes its place."""
        super().__init__(settings, device)
        self.key = (settings, amax.tobytes())  # those shown the same tensors from the same amax on stay equal
        self.rate = 1.0 - decay
        self.average = self._constant(amax, device)

    def set_average(self, amax: np.ndarray) -> None:
        self.average.fill_(float(amax))

    def move(self, largest: torch.Tensor) -> None:
        """average -= (1 - decay) * (average - largest)"""
        moved = self.average - self.rate * (self.average - largest)
        self.average.copy_(torch.where(torch.isnan(self.average), largest, moved))


class Quantization(QuantizationState):
    """The quantizers of a model."""

    channel_axis = 0

    def fixed(self, settings: QuantizerSettings, amax: np.ndarray) -> Quantizer:
        return Quantizer(settings, amax, self.device)

    def following(self, settings: QuantizerSettings) -> FollowingQuantizer:
        return FollowingQuantizer(settings, self.device)

    def averaging(self, settings: QuantizerSettings, amax: np.ndarray, decay: float) -> AveragingQuantizer:
        return AveragingQuantizer(settings, amax, decay, self.device)

    def tensor(self, parameter: torch.Tensor) -> torch.Tensor:
        return parameter

    def largest(self, x: torch.Tensor) -> torch.Tensor:
        low, high = torch.aminmax(x.detach())
        return torch.maximum(low.neg(), high)

    def array(self, x: torch.Tensor) -> np.ndarray:
        return x.detach().cpu().numpy()

    def stack(self, scalars: Sequence[torch.Tensor]) -> np.ndarray:
        return torch.stack(list(scalars)).cpu().numpy()
