"""What a range costs, from a histogram: against the values themselves."""

import numpy as np
import pytest

from quantization.calibration import METHODS, amax_from_histogram, mean_square, mean_squared_error
from quantization.histogram import Histogram
from quantization.numerics import QuantizerSettings, fake_quantize

UNSIGNED = QuantizerSettings(signed=False, fixed_scale=1 / 255)


def filled(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    histogram.update(values.astype(np.float32))
    return histogram


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_close_to_the_error_of_the_values(share: float) -> None:
    values = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    histogram = filled(values)
    amax = np.float32(share * histogram.amax)
    # The sign does not matter but for the integer -128, which the magnitudes do not know.
    real = np.mean((np.abs(values).astype(np.float64) - fake_quantize(np.abs(values), amax, QuantizerSettings())) ** 2)
    assert mean_squared_error(histogram, float(amax)) == pytest.approx(real, rel=0.05)
    assert mean_square(histogram) == pytest.approx(np.mean(values.astype(np.float64) ** 2), rel=0.01)


def test_the_mse_method_costs_least() -> None:
    histogram = filled(np.random.default_rng(1).standard_t(3, 50_000))
    cost = {method: mean_squared_error(histogram, amax_from_histogram(histogram, method)) for method in METHODS}
    assert min(cost, key=lambda method: cost[method]) == "mse" and cost["max"] > 1.2 * cost["mse"]


def test_fixed_scale_and_nothing() -> None:
    values = np.random.default_rng(2).random(50_000)
    assert mean_squared_error(filled(values), 1.0, UNSIGNED) == pytest.approx((1 / 255) ** 2 / 12, rel=0.05)
    assert mean_squared_error(Histogram(), 1.0) == mean_square(Histogram()) == 0.0
    assert mean_squared_error(filled(np.zeros(5)), 0.0) < 1e-12
