"""The quantizers of a model as ONNX sees them: a scale and a range of integers each."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from quantization.modes import Mode, enabled_quantizers
from quantization.numerics import ZERO_AMAX, QuantizerSettings, quantize, scale_of
from twinquant.errors import UserError

# Stands for the scale of an activation whose range is all zero: every value that can occur rounds to 0, and products of
# two such scales are still finite.
DEAD_SCALE = np.float32(2.0**40)


@dataclass(frozen=True, eq=False)
class Grid:
    """One enabled quantizer: integers in [qmin, qmax] that stand for integer * scale.

    amax: float32, () or (channels,) for a weight quantized per channel; not looked at with a fixed scale.
    """

    scope: str
    settings: QuantizerSettings
    amax: np.ndarray

    @property
    def scale(self) -> np.ndarray:
        """float32, () or (channels,); positive everywhere."""
        scale = scale_of(self.amax, self.settings, self.scope)
        if self.settings.fixed_scale is not None:
            return scale
        dead = self.amax < np.float32(ZERO_AMAX)
        if not dead.any():
            return scale
        # The integers of a dead channel are all 0, whatever the scale; a usual one keeps int32 biases precise.
        usual = np.median(scale[~dead]) if not dead.all() else DEAD_SCALE
        return np.where(dead, np.float32(usual), scale).astype(np.float32)

    @property
    def signed(self) -> bool:
        return self.settings.signed

    @property
    def fills_int8(self) -> bool:
        """Whether the integers are all that 8 bits hold, so that a QuantizeLinear alone clips rightly."""
        return self.settings.num_bits == 8 and (not self.signed or not self.settings.narrow_range)

    @property
    def bounds(self) -> tuple[np.float32, np.float32]:
        """The real numbers that the smallest and the largest integer stand for."""
        scale = np.float32(self.scale)
        return np.float32(self.settings.qmin) * scale, np.float32(self.settings.qmax) * scale

    def integers(self, weight: np.ndarray) -> np.ndarray:
        """A weight's integers, int8, of its shape."""
        return quantize(weight, self.amax, self.settings, self.scope).astype(np.int8)

    def rounded(self, weight: np.ndarray) -> np.ndarray:
        """The weight as its integers stand for it, float32."""
        return (self.integers(weight).astype(np.float32) * self.scale).astype(np.float32)


def make_grids(mode: Mode, ranges: Mapping[str, np.ndarray], num_hidden_layers: int) -> dict[str, Grid]:
    """A grid for every quantizer that `mode` turns on, by full scope.

    Args:
        ranges: from `quantization.ranges.select_ranges`, which has checked them.

    Raises UserError where integers of more than 8 bits are asked for.
    """
    grids = {}
    for scope, settings in enabled_quantizers(num_hidden_layers, mode).items():
        if settings.num_bits > 8:
            raise UserError(
                f"quantizer {scope} has integers of {settings.num_bits} bits; ONNX int8 models hold at most 8"
            )
        amax = np.zeros((), np.float32) if settings.fixed_scale is not None else np.asarray(ranges[scope], np.float32)
        grids[scope] = Grid(scope, settings, amax)
    return grids


def row_grid(name: str, table: np.ndarray) -> Grid:
    """The grid of an embedding table with one scale per row, [-127, 127]; table: float32 [rows, hidden]."""
    amax = np.abs(table).max(axis=1).astype(np.float32)
    return Grid(name, QuantizerSettings(narrow_range=True, axis=0), amax)


def kernel_grid(name: str, kernel: np.ndarray, num_bits: int = 8) -> Grid:
    """The grid of a kernel [in, out] with one scale per output channel, at its maximum."""
    amax = np.abs(kernel).max(axis=0).astype(np.float32)
    return Grid(name, QuantizerSettings(num_bits=num_bits, narrow_range=True, axis=1), amax)
