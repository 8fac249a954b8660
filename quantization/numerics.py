"""The arithmetic of fake quantization: the one place where its formulae are written.

    scale = float32(amax / qmax)
    q     = clip(rint(x / scale), qmin, qmax)        rint rounds half to even; float32 division
    y     = float32(q) * scale

Both backends and the exported ONNX graphs are tested against this file. The division is never replaced by a
multiplication with the reciprocal: onnxruntime's QuantizeLinear divides, and the two differ in the last bit, which is
enough to move a value across a rounding boundary.

Sources: the symmetric quantizer of NVIDIA's pytorch-quantization and of FasterTransformer's TensorFlow example
(weights in [-127, 127], activations in [-128, 127]; tensors with a range of at most about 2**-24 give zero).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from twinquant.errors import UserError

# A range below this is treated as that of an all-zero tensor: every value quantizes to 0.
ZERO_AMAX = 2.0**-24


@dataclass(frozen=True)
class QuantizerSettings:
    """How one quantizer turns real numbers into integers.

    num_bits: width of the integers, 2 to 16.
    signed: symmetric signed integers, or unsigned ones for tensors that are never negative.
    narrow_range: leave out the most negative integer (-128 with 8 bits); has no effect on unsigned integers.
    fixed_scale: a scale that is known beforehand, so that no amax is needed (1/255 for probabilities); None otherwise.
    axis: the axis of the tensor that has one amax per index (per channel); None for one amax per tensor.
    straight_through: the gradient passes unchanged everywhere, also where values clip (NLP Architect's estimator).
    """

    num_bits: int = 8
    signed: bool = True
    narrow_range: bool = False
    fixed_scale: float | None = None
    axis: int | None = None
    straight_through: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.num_bits <= 16:
            raise UserError(f"num_bits of a quantizer must be from 2 to 16, not {self.num_bits}")
        if self.fixed_scale is not None and not (math.isfinite(self.fixed_scale) and self.fixed_scale > 0):
            raise UserError(f"fixed_scale of a quantizer must be positive and finite, not {self.fixed_scale}")

    @property
    def qmax(self) -> int:
        """Largest integer: 127 for 8 bits, 255 unsigned."""
        return 2 ** (self.num_bits - 1) - 1 if self.signed else 2**self.num_bits - 1

    @property
    def qmin(self) -> int:
        """Smallest integer: -128 for 8 bits, -127 in narrow range, 0 unsigned."""
        if not self.signed:
            return 0
        return -self.qmax if self.narrow_range else -self.qmax - 1


def check_amax(amax: npt.ArrayLike | None, name: str = "quantizer") -> np.ndarray:
    """amax as a float32 array. Raises UserError naming the quantizer if it is missing, negative or not finite.

    A float64 amax is rounded to float32 first; one that then is infinite is refused too.
    """
    if amax is None:
        raise UserError(f"{name} has no amax: calibrate the model first, or load a checkpoint that holds its ranges")
    with np.errstate(over="ignore"):  # an overflow becomes inf, which is refused below
        array = np.asarray(amax, dtype=np.float32)
    if not np.isfinite(array).all():
        found = array[~np.isfinite(array)].flat[0]
        raise UserError(f"{name} has the amax {found}, a finite number was expected: calibrate the model again")
    if (array < 0).any():
        raise UserError(f"{name} has the negative amax {array.min()}, a number of at least 0 was expected")
    return array


def scale_of(amax: npt.ArrayLike | None, settings: QuantizerSettings, name: str = "quantizer") -> np.ndarray:
    """The size of one quantization step, float32, of amax's shape.

    It is float32(amax) / float32(qmax), rounded once; or float32(fixed_scale), shape (), in which case amax is not
    looked at. It is 0 for amax = 0: quantize() handles that case, other users of a scale must too.
    Raises UserError for a missing, negative or non-finite amax.
    """
    if settings.fixed_scale is not None:
        return np.asarray(settings.fixed_scale, dtype=np.float32)
    return np.asarray(check_amax(amax, name) / np.float32(settings.qmax), dtype=np.float32)


def largest_value(amax: npt.ArrayLike | None, settings: QuantizerSettings, name: str = "quantizer") -> np.ndarray:
    """The magnitude above which values are clipped, float32: amax, or qmax * scale where the scale is fixed."""
    if settings.fixed_scale is not None:
        return np.asarray(np.float32(settings.qmax) * np.float32(settings.fixed_scale))
    return check_amax(amax, name)


def quantize(
    x: npt.ArrayLike, amax: npt.ArrayLike | None, settings: QuantizerSettings, name: str = "quantizer"
) -> np.ndarray:
    """The integers that stand for x: int32, of x's shape, in [qmin, qmax].

    x: float array of any shape, taken as float32; infinities clip, NaN raises UserError.
    amax: float32 of shape (), or (x.shape[axis],) when settings.axis is given; not looked at with a fixed scale.
    Where amax < ZERO_AMAX the result is 0.
    """
    x = np.asarray(x, dtype=np.float32)
    if np.isnan(x).any():
        raise UserError(f"{name} was given a tensor that holds NaN")
    scale = _along_axis(scale_of(amax, settings, name), x, settings, name)
    is_zero = _is_zero(amax, x, settings, name)
    with np.errstate(over="ignore"):  # x / scale may overflow to infinity, which clips like any other large value
        steps = np.rint(x / np.where(is_zero, np.float32(1), scale))
    q = np.clip(steps, np.float32(settings.qmin), np.float32(settings.qmax))
    return np.where(is_zero, np.int32(0), q.astype(np.int32))


def dequantize(
    q: npt.ArrayLike, amax: npt.ArrayLike | None, settings: QuantizerSettings, name: str = "quantizer"
) -> np.ndarray:
    """The real numbers that the integers q stand for: float32(q) * scale, float32, of q's shape."""
    q = np.asarray(q)
    scale = _along_axis(scale_of(amax, settings, name), q, settings, name)
    return np.asarray(q.astype(np.float32) * scale, dtype=np.float32)


def fake_quantize(
    x: npt.ArrayLike, amax: npt.ArrayLike | None, settings: QuantizerSettings, name: str = "quantizer"
) -> np.ndarray:
    """x rounded to the nearest number that the quantizer can represent: float32, of x's shape.

    Arguments as for quantize(). A negative zero becomes a positive one, since there is only one integer 0.
    """
    return dequantize(quantize(x, amax, settings, name), amax, settings, name)


def gradient_mask(
    x: npt.ArrayLike,
    amax: npt.ArrayLike | None,
    settings: QuantizerSettings = QuantizerSettings(),
    name: str = "quantizer",
) -> np.ndarray:
    """Where the straight-through estimator lets the gradient pass: bool, of x's shape.

    Signed: |x| <= amax, as in pytorch-quantization (the TensorFlow original used <, which froze the extreme weight of
    every max-calibrated channel). Unsigned: 0 <= x <= amax. With a fixed scale, amax is qmax * scale in float32.
    Everywhere with settings.straight_through.
    """
    x = np.asarray(x, dtype=np.float32)
    if settings.straight_through:
        return np.ones(x.shape, bool)
    limit = _along_axis(largest_value(amax, settings, name), x, settings, name)
    return np.asarray(np.abs(x) <= limit if settings.signed else (x >= 0) & (x <= limit))


def _is_zero(amax: npt.ArrayLike | None, x: np.ndarray, settings: QuantizerSettings, name: str) -> np.ndarray:
    """Where the range is so small that the tensor counts as zero: bool, broadcasts against x."""
    if settings.fixed_scale is not None:
        return np.asarray(False)
    return _along_axis(check_amax(amax, name) < np.float32(ZERO_AMAX), x, settings, name)


def _along_axis(values: np.ndarray, x: np.ndarray, settings: QuantizerSettings, name: str) -> np.ndarray:
    """values, one per tensor or one per channel, in a shape that broadcasts against x."""
    if settings.axis is None or settings.fixed_scale is not None:
        if values.shape != ():
            raise UserError(f"{name} has an amax of shape {values.shape}, one number for the whole tensor was expected")
        return values
    if not -x.ndim <= settings.axis < x.ndim:
        raise UserError(f"{name} quantizes along axis {settings.axis}, but its tensor has the shape {x.shape}")
    channels = x.shape[settings.axis]
    if values.shape != (channels,):
        raise UserError(f"{name} has an amax of shape {values.shape}, ({channels},) was expected: one per channel")
    shape = [1] * x.ndim
    shape[settings.axis] = channels
    return values.reshape(shape)
