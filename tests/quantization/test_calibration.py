"""Calibration methods against slow loops written from their definitions, and against numpy.percentile."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from quantization.calibration import METHODS, amax_from_histogram, clipped_fraction, weight_amax, without_last_bits
from quantization.histogram import Histogram
from quantization.numerics import QuantizerSettings
from twinquant.errors import UserError

SIGNED = QuantizerSettings()
UNSIGNED = QuantizerSettings(signed=False)
FOUR_BITS = QuantizerSettings(num_bits=4)

# The range of a histogram is at least 2**-24, so values up to n * SMALL use n bins only: the loops below stay quick.
SMALL = 2.0**-24 / 2048


def histogram_of(values):
    histogram = Histogram()
    histogram.update(np.asarray(values, np.float32))
    return histogram


def slow_mse(histogram, settings):
    """Every candidate against every bin that is not empty; the first of the best candidates."""
    qmax, levels = settings.qmax, 2 ** (settings.num_bits - settings.signed)
    edges = histogram.edges()
    used = max(np.flatnonzero(histogram.counts)) + 1
    centers = [(edges[j] + edges[j + 1]) / 2 for j in range(used)]
    best, best_score = float(histogram.amax), math.inf
    for i in range(levels, used):
        amax = min(centers[i], float(histogram.amax))
        score = 0.0
        for j in np.flatnonzero(histogram.counts):
            q = round(min(centers[j], amax) / (amax / qmax))
            score += int(histogram.counts[j]) * (q * amax / qmax - centers[j]) ** 2
        if score < best_score * (1 - 1e-9):
            best, best_score = amax, score
    return np.float32(best)


def slow_entropy(histogram, settings):
    """Both distributions of every candidate written out bin by bin; the last of the best candidates."""
    levels = 2 ** (settings.num_bits - settings.signed)
    used = max(np.flatnonzero(histogram.counts)) + 1
    edges = histogram.edges()
    bins = [int(count) for count in histogram.counts[:used]]
    bins[0] = bins[1]
    best, best_score = float(histogram.amax), math.inf
    for i in range(levels, used + 1):
        group_of = [j * levels // i for j in range(i)]
        sums, filled = [0] * levels, [0] * levels
        for j in range(i):
            sums[group_of[j]] += bins[j]
            filled[group_of[j]] += bins[j] > 0
        q = [sums[group_of[j]] / filled[group_of[j]] if bins[j] else 0.0 for j in range(i)]
        p = [float(count) for count in bins[:i]]
        p[-1] += sum(bins[i:])
        total_p, total_q = math.fsum(p), math.fsum(q)
        if total_q == 0 or any(a > 0 and b == 0 for a, b in zip(p, q, strict=True)):
            continue
        score = math.fsum(a / total_p * math.log((a / total_p) / (b / total_q)) for a, b in zip(p, q, strict=True) if a)
        if score <= best_score + 1e-12:
            best, best_score = min(float(edges[i]), float(histogram.amax)), score
    return np.float32(best)


def long_tail(rng, bins, size):
    """Values on a grid of `bins` bins, most of them small, with gaps in the tail."""
    values = np.abs(rng.standard_normal(size)) ** 2.5
    return values / values.max() * bins * SMALL


SLOW = {"mse": slow_mse, "entropy": slow_entropy}
CASES = {
    "normal": lambda rng: np.minimum(np.abs(rng.standard_normal(3000)) / 4, 1) * 400 * SMALL,
    "long-tail": lambda rng: long_tail(rng, 500, 2000),
    "very-long-tail": lambda rng: np.append(rng.uniform(0, 150, 2000), 600) * SMALL,
    "uniform": lambda rng: rng.uniform(0, 300, 3000) * SMALL,
    "half-zeros": lambda rng: np.append(long_tail(rng, 400, 1000), np.zeros(1000)),
    "sparse": lambda rng: rng.choice([1, 7, 50, 200, 301, 399], 100) * SMALL,
    "just-above-the-levels": lambda rng: rng.uniform(0, 257.5, 1000) * SMALL,
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("settings", [SIGNED, UNSIGNED, FOUR_BITS], ids=["signed", "unsigned", "4-bit"])
@pytest.mark.parametrize("method", SLOW)
def test_against_slow_loops(method, settings, case):
    histogram = histogram_of(CASES[case](np.random.default_rng(3)))
    amax = amax_from_histogram(histogram, method, settings=settings)
    assert amax.dtype == np.float32
    assert amax == SLOW[method](histogram, settings)


@pytest.mark.parametrize("method", SLOW)
def test_against_slow_loops_full_size(method):
    histogram = histogram_of(np.clip(np.random.default_rng(4).standard_normal(400), -2.3, 2.3))  # 1178 bins
    assert amax_from_histogram(histogram, method) == SLOW[method](histogram, SIGNED)


@given(st.lists(st.integers(0, 30), min_size=9, max_size=40))
@hypothesis_settings(max_examples=200)
def test_any_counts_agree_with_slow_loops(counts):
    histogram = Histogram()
    histogram.update(np.repeat(np.arange(1, len(counts) + 1) * np.float32(SMALL), counts))
    if np.count_nonzero(histogram.counts) < 2:
        return
    for method, slow in SLOW.items():
        got = amax_from_histogram(histogram, method, settings=FOUR_BITS)
        assert got == slow(histogram, FOUR_BITS), method


def test_max_is_exact():
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    assert amax_from_histogram(histogram_of(x), "max") == np.abs(x).max()


@pytest.mark.parametrize("percentile", [1, 50, 99, 99.9, 99.99, 100])
def test_percentile_against_numpy(percentile):
    x = np.random.default_rng(0).standard_normal(29989).astype(np.float32)  # prime: no percentile falls between two
    histogram = histogram_of(x)
    expected = np.percentile(np.abs(x), percentile, method="inverted_cdf")
    got = amax_from_histogram(histogram, "percentile", percentile)
    assert expected <= got <= expected + histogram.width
    assert (np.abs(x) <= got).mean() >= percentile / 100


def test_percentile_100_is_the_maximum():
    histogram = histogram_of([0.1, 0.2, 0.7])
    assert amax_from_histogram(histogram, "percentile", 100) == np.float32(0.7)


def test_percentile_counts_zeros_and_is_not_off_by_rounding():
    # 9999 of 10000 values are zeros: exactly 99.99 percent, so the range is that of bin 0.
    histogram = histogram_of(np.append(np.zeros(9999), 1.0))
    assert amax_from_histogram(histogram, "percentile", 99.99) == np.float32(histogram.width)
    assert amax_from_histogram(histogram, "percentile", 99.991) == 1


@pytest.mark.parametrize("method", ["mse", "entropy"])
def test_outlier_is_clipped_and_no_outlier_is_not(method):
    rng = np.random.default_rng(0)
    bulk = rng.uniform(-1, 1, 400000)
    assert amax_from_histogram(histogram_of(bulk), method) > 0.98
    assert amax_from_histogram(histogram_of(np.append(bulk, 4.0)), method) < 1.5


@pytest.mark.parametrize(
    "values",
    [
        pytest.param([0.0, 0.0], id="zeros"),
        pytest.param([0.7] * 5, id="constant"),
        pytest.param([-0.7, 0.7], id="one-magnitude"),
        pytest.param([1e-30], id="tiny"),
        pytest.param([1e-30, 0.0, 3 * SMALL], id="few-bins-in-use"),
        pytest.param([0.0, 0.7], id="zero-and-constant"),
        pytest.param([3.4e38, 1.0], id="huge"),
    ],
)
@pytest.mark.parametrize("settings", [SIGNED, UNSIGNED, QuantizerSettings(num_bits=16)], ids=["8", "unsigned", "16"])
@pytest.mark.parametrize("method", METHODS)
def test_few_values(method, settings, values):
    histogram = histogram_of(values)
    largest = np.abs(np.float32(values)).max()
    amax = amax_from_histogram(histogram, method, 100, settings)
    # The center of the maximum's bin, for mse, lies at most half a bin below it.
    assert largest - histogram.width / 2 <= amax <= largest
    if np.count_nonzero(histogram.counts) < 2:
        assert amax == largest


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=50), st.sampled_from(METHODS))
def test_never_above_the_maximum_and_histogram_untouched(values, method):
    histogram = histogram_of(values)
    before = histogram.counts.copy()
    amax = amax_from_histogram(histogram, method, 99.0)
    assert 0 <= amax <= np.abs(np.float32(values)).max()
    assert np.array_equal(histogram.counts, before)


@pytest.mark.parametrize(
    ("method", "percentile", "words"),
    [
        ("median", 99.0, "'median' is not known"),
        ("percentile", 0.0, "percentile must be above 0"),
        ("percentile", 100.1, "not 100.1"),
        ("percentile", math.nan, "not nan"),
    ],
)
def test_wrong_method_or_percentile(method, percentile, words):
    with pytest.raises(UserError, match=words):
        amax_from_histogram(histogram_of([1.0]), method, percentile)


@pytest.mark.parametrize("method", METHODS)
def test_no_values(method):
    with pytest.raises(UserError, match="layer_1/input_quantizer has seen no values"):
        amax_from_histogram(Histogram(), method, name="layer_1/input_quantizer")


def test_weight_amax():
    kernel = np.array([[1, -5, 2], [-3, 4, 0]], np.float32)
    whole = weight_amax(kernel, per_channel=False)
    assert whole.shape == () and whole.dtype == np.float32 and whole == 5
    assert weight_amax(kernel, per_channel=True, axis=1).tolist() == [3, 5, 2]
    assert weight_amax(kernel, per_channel=True, axis=-1).tolist() == [3, 5, 2]
    assert weight_amax(kernel, per_channel=True, axis=0).tolist() == [5, 4]


@pytest.mark.parametrize("kernel", [[[1.0, np.nan]], [[1.0, np.inf]], [[]]], ids=["nan", "infinite", "empty"])
def test_weight_errors(kernel):
    with pytest.raises(UserError, match="layer_0/query/kernel"):
        weight_amax(np.array(kernel, np.float32), per_channel=True, name="layer_0/query/kernel")


def test_clipped_fraction():
    histogram = histogram_of([0.0, 0.1, 0.25, 0.3, 0.9, 1.0])
    assert clipped_fraction(histogram, 0.25) == 0.5  # an edge: exact
    assert clipped_fraction(histogram, 1.0) == 0
    assert clipped_fraction(histogram, 0.0) == 1  # bin 0 holds the zeros too
    assert clipped_fraction(Histogram(), 1.0) == 0


def test_percentile_clips_what_it_says():
    histogram = histogram_of(np.random.default_rng(0).standard_normal(100000))
    amax = amax_from_histogram(histogram, "percentile", 99.0)
    assert 0.009 < clipped_fraction(histogram, float(amax)) <= 0.01


@pytest.mark.parametrize("amax", [0.0, 1.0, 0.3, 7.3e-5, 123.456, 65504.0])
def test_last_bits_are_rounded_up(amax):
    rounded = without_last_bits(np.float32(amax))
    assert np.float32(amax) <= rounded <= np.float32(amax) * (1 + 2.0**-11)
    assert without_last_bits(rounded) == rounded
    below = np.nextafter(rounded, np.float32(0))
    assert without_last_bits(below) == rounded  # neighbors in the last bit give one range
