"""The quantizers of a model, whatever the framework: which are on, what each is given, how training finds ranges.

The frameworks' quantizers.py files supply the arithmetic of one quantizer and the few operations at the end of the
class below.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from quantization.clipping import ClippingCounter
from quantization.histogram import Observer
from quantization.modes import Mode, all_quantizers, feeds_product, is_calibrated
from quantization.numerics import ZERO_AMAX, QuantizerSettings, check_amax, largest_value, scale_of
from twinquant.errors import UserError

NOT_FOUND = np.asarray(np.nan, np.float32)
"""A moving average before its first value."""


class Constants(NamedTuple):
    """What a quantizer whose range stays computes with: float32, shape () or (channels,)."""

    divisor: np.ndarray
    scale: np.ndarray
    lowest: np.ndarray
    largest: np.ndarray  # values clip below the one and above the other


def constants_of(settings: QuantizerSettings, amax: np.ndarray) -> Constants:
    """Those of that range; amax is not looked at where the scale is fixed."""
    scale, largest = scale_of(amax, settings), largest_value(amax, settings)
    lowest = -largest if settings.signed else np.zeros_like(largest)
    # An all-zero range gives q = 0 and y = 0: divide by infinity, multiply by zero.
    is_zero = largest < ZERO_AMAX
    divisor = np.where(is_zero, np.float32(np.inf), scale)
    return Constants(divisor, np.where(is_zero, np.float32(0.0), scale), lowest, largest)


class QuantizationState(ABC):
    """The state of all quantizers of a model: off, fake-quantizing, or showing what they see to an observer."""

    channel_axis: int  # of a kernel as the framework keeps it

    def __init__(self, device: Any) -> None:
        self.device = device
        self.quantizers: dict[str, Any] = {}
        self.learns_ranges = False  # see Mode.ema_decay
        self.averages: dict[str, Any] = {}  # those of the quantizers whose range is then a moving average
        self.starts: dict[str, int] = {}  # of every quantizer, see Mode.start_of
        self.step = 0  # training steps done
        self.waiting: frozenset[str] = frozenset()  # quantizers whose start is still ahead
        self.complete = True  # whether every moving average is known to have a value
        self._before = np.empty(0, np.float32)  # the averages before the training step that is running
        self.learning = False  # a training step is running: averages move, and some quantizers may wait
        self.exact = False  # see Backend.predict
        self.observer: Observer | None = None
        self.amax: dict[str, np.ndarray] = {}  # of the quantizers with a range that stays, as configured
        self.counter: ClippingCounter | None = None  # see Backend.clipped_fractions
        self.lengths: np.ndarray | None = None  # of the batch that is observed; None: padding counts

    def configure(
        self,
        mode: Mode | None,
        ranges: Mapping[str, np.ndarray],
        num_hidden_layers: int,
        head: str | None = None,
        step: int = 0,
    ) -> None:
        """Turns on the quantizers of `mode` with their amax, or all off; see Backend.set_quantization."""
        self.quantizers, self.averages, self.starts, self.amax, self.step = {}, {}, {}, {}, step
        self.learns_ranges = mode is not None and mode.learns_ranges
        if mode is not None:
            for scope, row in all_quantizers(num_hidden_layers, head).items():
                if not mode.enables(scope, row):
                    continue
                settings = mode.settings(row)
                if mode.ema_decay is None:
                    # At a fixed scale the range is known, and none is stored.
                    amax = np.ones((), np.float32) if settings.fixed_scale else check_amax(ranges.get(scope), scope)
                    self.quantizers[scope] = self.fixed(settings, amax)
                    self.amax[scope] = self.quantizers[scope].constants.largest
                    continue
                self.starts[scope] = mode.start_of(row)
                if row.is_weight:
                    self.quantizers[scope] = self.following(settings)
                else:
                    amax = check_amax(ranges[scope], scope) if scope in ranges else NOT_FOUND
                    self.averages[scope] = self.averaging(settings, amax, mode.ema_decay)
                    self.quantizers[scope] = self.averages[scope]
        self.waiting = self._waiting()
        self.complete = not self.averages

    @property
    def active(self) -> bool:
        """Whether any tensor inside the encoder must be visible (so no fused attention)."""
        return bool(self.quantizers) or self.observer is not None

    def __call__(self, x: Any, scopes: Sequence[str], sequence_axes: tuple[int, ...] = (1,)) -> tuple:
        """Passes one tensor through the quantizers of several consumers; equal quantizers compute once.

        Args:
            x: float32, any shape; `sequence_axes` are the axes that run over positions.
            scopes: the quantizers that see x, one per consumer.

        Returns:
            One tensor per scope: fake-quantized, or x itself where the quantizer is off. In exact arithmetic an
            operand of a matrix product comes as its integers, and `scaled` multiplies the product by the scales.
        """
        if self.observer is not None:
            seen = [scope for scope in scopes if is_calibrated(scope)]
            if seen:
                self.observer.observe(seen, self.array(x), self.lengths, sequence_axes)
            return (x,) * len(scopes)
        if self.counter is not None and any(scope in self.counter.amax for scope in scopes):
            self.counter.observe(scopes, self.array(x), self.lengths, sequence_axes)
        if self.learns_ranges:
            self._move(x, scopes)
        done: dict = {}
        outputs = []
        for scope in scopes:
            quantizer = self._on(scope)
            if quantizer is None:
                outputs.append(x)
                continue
            as_integers = self.exact and feeds_product(scope)
            key = (quantizer.key, as_integers)
            if key not in done:
                done[key] = quantizer.integers(x) if as_integers else quantizer(x)
            outputs.append(done[key])
        return tuple(outputs)

    def weight(self, kernel: Any, scope: str) -> Any:
        """The kernel, fake-quantized if its quantizer is on; its integers in exact arithmetic."""
        quantizer = self._on(scope)
        if quantizer is None:
            return kernel
        kernel = self.tensor(kernel)
        if self.counter is not None and scope in self.counter.amax:
            self.counter.observe_weight(scope, self.array(kernel), self.channel_axis)
        if self.learns_ranges:
            quantizer.set_range(self.largest(kernel))
        return quantizer.integers(kernel) if self.exact else quantizer(kernel)

    def rows(self, rows: Any, table: Any, scope: str) -> Any:
        """Rows of an embedding table, fake-quantized with the range of the whole table if its quantizer is on."""
        quantizer = self._on(scope)
        if quantizer is None:
            return rows
        quantizer.set_range(self.largest(self.tensor(table)))
        return quantizer(rows)

    def scaled(self, product: Any, scopes: Sequence[str]) -> Any:
        """In exact arithmetic a product of integers times the scales of its operands' quantizers, else the product."""
        if not self.exact or self.observer is not None:
            return product
        scales = [self.quantizers[scope].product_scale for scope in scopes if scope in self.quantizers]
        return product * math.prod(scales) if scales else product

    def new_counter(self) -> ClippingCounter:
        """Counts what is clipped by the quantizers that are on in training; those without a range yet are left out.

        Where a range is the maximum of what is quantized, as that of weights in q8bert, nothing can be.
        """
        if not self.learns_ranges:
            return ClippingCounter(self.amax)
        return ClippingCounter({scope: amax for scope, amax in self.ranges().items() if scope not in self.waiting})

    def begin_step(self) -> bool:
        """To be called before the forward passes of a training step.

        Returns whether other quantizers are on than in the step before, so that a graph is out of date.
        """
        self._before = self._values()
        for scope, average in self.averages.items():
            if self.step <= self.starts[scope]:  # the first quantized step begins the average, whatever went before
                average.set_average(NOT_FOUND)
        self.complete = not self.averages
        waiting, self.waiting = self.waiting, self._waiting()
        return waiting != self.waiting

    def end_step(self, finite: bool) -> None:
        """To be called after a training step; one that was not finite leaves the averages as they were."""
        if not finite:
            for average, value in zip(self.averages.values(), self._before, strict=True):
                average.set_average(value)
        self.step += 1

    def ranges(self) -> dict[str, np.ndarray]:
        """The moving averages, float32 of shape (), by scope; those without a value yet are left out."""
        values = zip(self.averages, self._values(), strict=True)
        return {scope: np.asarray(value, np.float32) for scope, value in values if not np.isnan(value)}

    def set_ranges(self, ranges: Mapping[str, np.ndarray]) -> None:
        """Sets the moving averages of these quantizers."""
        for scope, value in ranges.items():
            self.averages[scope].set_average(check_amax(value, scope))

    def check_ranges(self) -> None:
        """Raises UserError where a quantizer has no range yet, as before the first training step."""
        if not self.complete:
            missing = sorted(self.averages.keys() - self.ranges().keys())
            if missing:
                raise UserError(
                    f"quantizer {missing[0]} has no range: it is found in training (--quant_scheme q8bert); train the "
                    "model so, or load a checkpoint of one that was"
                )
            self.complete = True

    def _on(self, scope: str) -> Any:
        """The quantizer of that scope; None where it is off."""
        as_in_training = self.learning or self.counter is not None
        if self.observer is not None or (as_in_training and scope in self.waiting):
            return None
        return self.quantizers.get(scope)

    def _move(self, x: Any, scopes: Sequence[str]) -> None:
        """Moves the averages of x's quantizers in training, and sets their ranges."""
        averages = [self.averages[scope] for scope in scopes if scope in self.quantizers]
        if averages and self.learning:
            largest = self.largest(x)
            for average in averages:
                average.move(largest)
        for average in averages:
            average.set_range(average.average)

    def _waiting(self) -> frozenset[str]:
        return frozenset(scope for scope, start in self.starts.items() if self.step < start)

    def _values(self) -> np.ndarray:
        """The moving averages, float32 [number of them], NaN for one without a value."""
        return self.stack([average.average for average in self.averages.values()]) if self.averages else np.empty(0)

    @abstractmethod
    def fixed(self, settings: QuantizerSettings, amax: np.ndarray) -> Any:
        """A quantizer whose range stays."""

    @abstractmethod
    def following(self, settings: QuantizerSettings) -> Any:
        """A quantizer whose range is set anew for every tensor."""

    @abstractmethod
    def averaging(self, settings: QuantizerSettings, amax: np.ndarray, decay: float) -> Any:
        """A quantizer whose range is a moving average that begins with amax, or with the next value if that is NaN."""

    @abstractmethod
    def tensor(self, parameter: Any) -> Any:
        """A parameter's value as the framework computes with it."""

    @abstractmethod
    def largest(self, x: Any) -> Any:
        """max|x| without gradient, a float32 tensor of shape ()."""

    @abstractmethod
    def array(self, x: Any) -> np.ndarray:
        """A tensor as NumPy array."""

    @abstractmethod
    def stack(self, scalars: Sequence[Any]) -> np.ndarray:
        """Numbers on the device as one NumPy array."""
