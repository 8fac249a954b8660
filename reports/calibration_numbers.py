"""What each calibration method would have chosen for every activation, and what that costs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from quantization.calibration import (
    METHODS,
    amax_from_histogram,
    clipped_fraction,
    mean_square,
    mean_squared_error,
    without_last_bits,
)
from quantization.histogram import Histogram, Observer
from quantization.modes import Mode, all_quantizers
from quantization.numerics import largest_value

CHOSEN = "chosen"


@dataclass(frozen=True)
class Choice:
    """A range and what it costs: share of values clipped, 0 to 1; mean squared error."""

    amax: float
    clipped: float
    error: float


@dataclass(frozen=True)
class TensorNumbers:
    """One observed tensor.

    scopes: the quantizers that see it. enabled: those of them that the mode uses. choices: by method, and under
    "chosen" what the model got, which a mode may have fused with others or fixed. power: mean of x**2.
    """

    scopes: tuple[str, ...]
    enabled: tuple[str, ...]
    tensor: str
    layer: int | None
    histogram: Histogram = field(repr=False)
    choices: Mapping[str, Choice]
    power: float

    @property
    def name(self) -> str:
        """The first quantizer's scope, short: "attention/self/query/input" within its layer."""
        return short_name(self.scopes[0])

    @property
    def share_of_error(self) -> float:
        """The chosen range's mean squared error as a share of the mean square."""
        return self.choices[CHOSEN].error / self.power if self.power > 0 else 0.0


def calibration_numbers(
    observer: Observer, ranges: Mapping[str, np.ndarray], mode: Mode, layers: int, percentile: float
) -> list[TensorNumbers]:
    """Every observed tensor, in the order of the model.

    Args:
        ranges: what the model got, by scope.
        percentile: of the method of that name.
    """
    rows = all_quantizers(layers)
    numbers = []
    for scopes, histogram in observer.groups():
        settings = mode.settings(rows[scopes[0]])

        def cost(amax: float, histogram: Histogram = histogram, settings=settings) -> Choice:
            error = mean_squared_error(histogram, amax, settings)
            return Choice(amax, clipped_fraction(histogram, amax), error)

        choices = {
            method: cost(
                float(without_last_bits(amax_from_histogram(histogram, method, percentile, settings, scopes[0])))
            )
            for method in METHODS
        }
        choices[CHOSEN] = cost(float(largest_value(ranges[scopes[0]], settings, scopes[0])))
        found = re.match(r"bert/encoder/layer_(\d+)/", scopes[0])
        numbers.append(
            TensorNumbers(
                scopes=scopes,
                enabled=tuple(scope for scope in scopes if mode.enables(scope, rows[scope])),
                tensor=rows[scopes[0]].tensor,
                layer=int(found[1]) if found else None,
                histogram=histogram,
                choices=choices,
                power=mean_square(histogram),
            )
        )
    return numbers


def short_name(scope: str) -> str:
    """ "attention/self/query/input" for bert/encoder/layer_3/attention/self/query/input_quantizer."""
    return re.sub(r"^bert/(encoder/layer_\d+/)?|_quantizer$", "", scope)
