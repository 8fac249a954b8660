"""How a range is chosen: from the histogram of an activation, or from a weight's values.

Four methods, the same as in pytorch-quantization and in FasterTransformer's TensorFlow example. Both of those loop in
Python over about 2000 candidate ranges, times 2048 bins. Here the sums over runs of bins come from cumulative sums, so
that one candidate costs one row of 2**(num_bits - 1) numbers, and all candidates are computed at once.
"""

import math
from fractions import Fraction

import numpy as np

from quantization.histogram import Histogram
from quantization.numerics import QuantizerSettings, fake_quantize
from twinquant.errors import UserError

METHODS = ("max", "percentile", "mse", "entropy")
ACTIVATION = QuantizerSettings()

# Scores that differ by less than this, relative to the scale of the sums they come from, count as equal: float64 cannot
# tell them apart, and which of them wins must not depend on rounding.
TIE = 1e-12


def amax_from_histogram(
    histogram: Histogram,
    method: str,
    percentile: float = 99.99,
    settings: QuantizerSettings = ACTIVATION,
    name: str = "quantizer",
) -> np.float32:
    """The range of an activation: |x| up to the returned amax is represented, what lies above is clipped.

    method: one of METHODS; percentile: in (0, 100], used by the method of that name only.
    settings: num_bits and signed decide the number of levels that "mse" and "entropy" reckon with.
    The result is never above histogram.amax, and equals it where all values but zeros lie in one bin.
    Raises UserError for an unknown method, a percentile out of range and a histogram without values.
    """
    if method not in METHODS:
        raise UserError(f"calibration method {method!r} is not known: {', '.join(METHODS)} were expected")
    if not 0 < percentile <= 100:
        raise UserError(f"the calibration percentile must be above 0 and at most 100, not {percentile}")
    if histogram.total == 0:
        raise UserError(f"calibration: {name} has seen no values: is the calibration data empty?")
    if method == "percentile":
        return percentile_amax(histogram, percentile)
    if method == "max" or np.count_nonzero(histogram.counts) < 2:
        return histogram.amax
    return mse_amax(histogram, settings) if method == "mse" else entropy_amax(histogram, settings)


def percentile_amax(histogram: Histogram, percentile: float) -> np.float32:
    """The smallest right edge of a bin with at least `percentile` percent of the values at or below it; zeros count.

    Source: percentile calibration of pytorch-quantization and of FasterTransformer's TensorFlow example. Those return
    the bin's left edge, so that percentile 100 clips the maximum. Here it is the right edge, and never more than the
    exact maximum.
    """
    # In whole numbers, so that 99.99 percent of 10000 values is 9999 of them and not a rounding error more.
    needed = math.ceil(Fraction(str(percentile)) * histogram.total / 100)
    last_bin = int(np.searchsorted(np.cumsum(histogram.counts), needed))
    return _capped(histogram.edges()[last_bin + 1], histogram)


def mse_amax(histogram: Histogram, settings: QuantizerSettings = ACTIVATION) -> np.float32:
    """The candidate with the least squared error of quantization, every bin standing for its center.

    Source: mse calibration of pytorch-quantization and of FasterTransformer's TensorFlow example. Candidates are the
    centers of the bins from number 2**(num_bits - 1) on (2**num_bits unsigned) up to that of the maximum; the first
    of the best wins, that is the smallest range. With fewer bins in use than that, the maximum.
    """
    first, used = _levels(settings), _used_bins(histogram)
    if used <= first:
        return histogram.amax
    # In units of the bin width, in which centers are j + 0.5.
    counts = histogram.counts[:used].astype(np.float64)
    centers = np.arange(used) + 0.5
    amax = np.minimum(centers[first:], float(histogram.amax) / histogram.width)
    scale = amax / settings.qmax
    # Integer q stands for the bins from starts[:, q] to starts[:, q + 1] - 1: those with (q - 0.5) * scale < center.
    # Where a center lies on that border to the bit, both neighbors have the same error.
    borders = (np.arange(1, settings.qmax + 1) - 0.5) * scale[:, None] - 0.5
    starts = np.clip(np.floor(borders).astype(np.int64) + 1, 0, used)
    starts = np.pad(starts, ((0, 0), (1, 0)))  # integer 0 starts at bin 0
    q = np.arange(settings.qmax + 1)
    # sum of n * (c - q s)^2 = sum of n c^2 - 2 q s * sum of n c + (q s)^2 * sum of n, over each integer's bins
    values = q * scale[:, None]
    squares = (counts * centers**2).sum()
    error = squares + (values * (values * _sums(counts, starts) - 2 * _sums(counts * centers, starts))).sum(axis=1)
    best = int(np.flatnonzero(error <= error.min() + TIE * squares)[0])
    return _capped(amax[best] * histogram.width, histogram)


def entropy_amax(histogram: Histogram, settings: QuantizerSettings = ACTIVATION) -> np.float32:
    """The candidate that loses the least information: the Kullback-Leibler divergence of quantized from real counts.

    Source: entropy calibration of TensorRT (S. Migacz, "8-bit Inference with TensorRT", GTC 2017) as in
    pytorch-quantization and FasterTransformer's TensorFlow example. A candidate keeps the first i bins, from
    i = 2**(num_bits - 1) (2**num_bits unsigned) to all that are in use. P is their counts, those of the bins cut off
    added to the last; Q spreads the counts of each of the 2**(num_bits - 1) groups of bins evenly over the bins of that
    group that are not empty. Both are normalised. Bin 0, in which the zeros are, takes the count of bin 1 (the original
    changed the stored histogram by it; here it is a copy). The last of the best candidates wins, the largest range;
    amax is its right edge. With fewer bins in use than that, the maximum.
    """
    levels, used = _levels(settings), _used_bins(histogram)
    if used <= levels:
        return histogram.amax
    counts = histogram.counts[:used].astype(np.float64)
    counts[0] = counts[1]
    total = counts.sum()
    if total == 0:
        return histogram.amax
    p = counts / total
    kept = np.arange(levels, used + 1)  # bins per candidate
    inside = np.concatenate([[0.0], np.cumsum(p)])[kept]
    cut = np.concatenate([np.cumsum(p[::-1])[::-1], [0.0]])[kept]

    # Group g of a candidate starts at the first bin j with j >= g * kept / levels.
    starts = -(-np.arange(levels) * kept[:, None] // levels)
    mass = _sums(p, starts, kept)
    filled = _sums((counts > 0).astype(np.float64), starts, kept)
    level = mass / np.maximum(filled, 1)  # Q on the filled bins of a group, before it is normalised by `inside`

    # The divergence is sum P log P - sum P log Q + log(sum Q): P sums to 1, and differs from p in the last bin only.
    last = p[kept - 1]
    p_log_p = np.concatenate([[0.0], np.cumsum(_x_log_x(p))])[kept] - _x_log_x(last) + _x_log_x(last + cut)
    with np.errstate(divide="ignore", invalid="ignore"):
        p_log_q = np.where(mass > 0, mass * np.log(level), 0.0).sum(axis=1)
        p_log_q += np.where(cut > 0, cut * np.log(level[:, -1]), 0.0)
        divergence = p_log_p - p_log_q + np.log(inside)
    # Q has nothing where P has: infinitely bad.
    divergence[((last == 0) & (cut > 0)) | (inside == 0)] = np.inf
    best = int(np.flatnonzero(divergence <= divergence.min() + TIE)[-1])
    return _capped(histogram.edges()[kept[best]], histogram)


def without_last_bits(amax: float | np.floating) -> np.float32:
    """amax rounded up to 12 significant bits, at most 0.05 % more.

    An exact maximum differs in its last bits between frameworks, and so would the scale and then every integer; rounded
    up, the same data gives the same range everywhere, and nothing more is clipped.
    """
    mantissa, exponent = math.frexp(float(amax))  # amax = mantissa * 2**exponent, 0.5 <= mantissa < 1
    return np.float32(math.ldexp(math.ceil(mantissa * 2**12), exponent - 12))


def weight_amax(kernel: np.ndarray, per_channel: bool, axis: int = 1, name: str = "kernel") -> np.ndarray:
    """The range of a weight, always its largest absolute value: float32 of shape (), or (kernel.shape[axis],).

    kernel: float32, [in, out] for BERT's dense layers, whose output channels are on axis 1.
    Raises UserError naming the tensor if it is empty or holds NaN or infinity.
    """
    kernel = np.asarray(kernel, dtype=np.float32)
    if kernel.size == 0 or not np.isfinite(kernel).all():
        found = "no values" if kernel.size == 0 else "NaN or infinity"
        raise UserError(f"{name}, of shape {kernel.shape}, holds {found}, finite weights were expected")
    others = tuple(other for other in range(kernel.ndim) if other != axis % kernel.ndim) if per_channel else None
    return np.asarray(np.abs(kernel).max(axis=others), dtype=np.float32)


def clipped_fraction(histogram: Histogram, amax: float) -> float:
    """The share of the observed values that lie above amax, 0 to 1; exact where amax is the edge of a bin.

    Within the bin that holds amax nothing counts as clipped. 0 for a histogram without values.
    """
    if histogram.total == 0 or amax >= histogram.amax:
        return 0.0
    above = histogram.edges()[:-1] >= amax
    return float(histogram.counts[above].sum() / histogram.total)


def mean_squared_error(histogram: Histogram, amax: float, settings: QuantizerSettings = ACTIVATION) -> float:
    """The mean of (x - fake_quantize(x))**2 over the observed values, every bin standing for its center.

    0 for a histogram without values.
    """
    used = np.flatnonzero(histogram.counts)
    if not len(used):
        return 0.0
    # The last bin reaches beyond what was seen.
    centers = np.minimum((used + 0.5) * histogram.width, float(histogram.amax)).astype(np.float32)
    errors = centers.astype(np.float64) - fake_quantize(centers, np.float32(amax), settings)
    return float(np.average(errors**2, weights=histogram.counts[used]))


def mean_square(histogram: Histogram) -> float:
    """The mean of x**2 over the observed values, every bin standing for its center; 0 without values."""
    if not histogram.total:
        return 0.0
    centers = (np.arange(len(histogram.counts)) + 0.5) * histogram.width
    return float(np.average(centers**2, weights=histogram.counts))


def _levels(settings: QuantizerSettings) -> int:
    """The number of integers from 0 up: 128 for 8 bits, 256 unsigned."""
    return 2 ** (settings.num_bits - 1) if settings.signed else 2**settings.num_bits


def _used_bins(histogram: Histogram) -> int:
    """The number of bins up to that of the maximum."""
    return int(np.flatnonzero(histogram.counts)[-1]) + 1


def _capped(amax: float, histogram: Histogram) -> np.float32:
    return min(np.float32(amax), histogram.amax)


def _sums(values: np.ndarray, starts: np.ndarray, ends: np.ndarray | None = None) -> np.ndarray:
    """Sums of values over runs of bins: run g of a row is from starts[:, g] to the next start, the last one to the end.

    values [bins], starts int [candidates, runs], ends int [candidates] (default: all bins) -> [candidates, runs]
    """
    cumulative = np.concatenate([[0.0], np.cumsum(values)])
    last = cumulative[len(values) if ends is None else ends]
    at_start = cumulative[starts]
    return np.diff(at_start, append=np.broadcast_to(np.reshape(last, (-1, 1)), (len(starts), 1)))


def _x_log_x(x: np.ndarray) -> np.ndarray:
    """x log x, 0 for x = 0."""
    return x * np.log(np.where(x > 0, x, 1.0))
