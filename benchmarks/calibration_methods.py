"""Times calibration: histogram updates per element, and the methods on as many histograms as BERT-base has quantizers.

    python -m benchmarks.calibration_methods

Prints nanoseconds per element of Histogram.update() for four kinds of tensor, then, per method, the seconds for 349
histograms, and how many times faster one histogram is than with a loop over candidates and bins in plain Python: the
same formula, in the same process, with the same result (it stops if the results differ).

Set OMP_NUM_THREADS=1 and pin the process (taskset -c 1) for steady numbers. On one Zen4 core, NumPy 2.4: 2.3 to 3.7 ns
per element; mse about 1 s and entropy about 1.5 s for all 349, more than 700 and 100 times faster than the loops.
"""

import math
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from quantization.calibration import METHODS, amax_from_histogram
from quantization.histogram import Histogram

QUANTIZERS = 349  # 29 in each of 12 layers, and the final one
COMPARED = 3  # histograms that also go through the plain loops, which take seconds for each
LEVELS, QMAX = 128, 127


def tensors(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One tensor of each kind that a layer has, spread much as in a trained BERT: float32, batch 8, length 128."""
    hidden = rng.standard_normal((8, 128, 768), dtype=np.float32)
    hidden[..., 308] *= 15  # the outlier features of BERT's residual stream
    heads = rng.standard_normal((8, 128, 12, 64), dtype=np.float32).transpose(0, 2, 1, 3)
    scores = np.exp(2.5 * rng.standard_normal((8, 12, 128, 128), dtype=np.float32))
    inner = rng.standard_normal((8, 128, 3072), dtype=np.float32)
    gelu = 0.5 * inner * (1 + np.tanh(0.79788456 * (inner + 0.044715 * inner**3)))
    return {
        "residual stream [B, S, H]": hidden,
        "heads, a transposed view [B, A, S, D]": heads,
        "softmax output [B, A, S, S]": scores / scores.sum(axis=-1, keepdims=True),
        "GELU output [B, S, 4H]": gelu.astype(np.float32),
    }


def loop_mse(histogram: Histogram) -> float:
    """The mse method one candidate and one bin at a time."""
    counts, used, width = histogram.counts.tolist(), int(np.flatnonzero(histogram.counts)[-1]) + 1, histogram.width
    best, best_error = 0.0, math.inf
    for candidate in range(LEVELS, used):
        amax = min((candidate + 0.5) * width, float(histogram.amax))
        scale = amax / QMAX
        error = 0.0
        for bin_number in range(used):
            center = (bin_number + 0.5) * width
            error += counts[bin_number] * (min(round(center / scale), QMAX) * scale - center) ** 2
        if error < best_error:
            best, best_error = amax, error
    return best


def loop_entropy(histogram: Histogram) -> float:
    """The entropy method one candidate and one bin at a time."""
    used = int(np.flatnonzero(histogram.counts)[-1]) + 1
    counts = histogram.counts[:used].tolist()
    counts[0] = counts[1]
    total = sum(counts)
    best, best_divergence = used, math.inf
    for kept in range(LEVELS, used + 1):
        mass, filled = [0] * LEVELS, [0] * LEVELS
        for bin_number in range(kept):
            if counts[bin_number]:
                mass[bin_number * LEVELS // kept] += counts[bin_number]
                filled[bin_number * LEVELS // kept] += 1
        inside = sum(mass)
        if inside == 0 or (counts[kept - 1] == 0 and inside < total):
            continue
        divergence = 0.0
        for bin_number in range(kept):
            if counts[bin_number]:
                group = bin_number * LEVELS // kept
                p = (counts[bin_number] + (total - inside if bin_number == kept - 1 else 0)) / total
                divergence += p * math.log(p / (mass[group] / filled[group] / inside))
        if divergence <= best_divergence:
            best, best_divergence = kept, divergence
    return min(best * histogram.width, float(histogram.amax))


def seconds(call: Callable[[], object], repeats: int = 1) -> float:
    """The shortest of some runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def time_updates(samples: dict[str, np.ndarray]) -> None:
    for kind, x in samples.items():
        histogram = Histogram()
        histogram.update(x)
        best = seconds(partial(histogram.update, x), repeats=7)
        print(f"update  {kind:40s} {best / x.size * 1e9:5.2f} ns per element")


def many_histograms(samples: dict[str, np.ndarray], rng: np.random.Generator) -> list[Histogram]:
    histograms = []
    for number in range(QUANTIZERS):
        x = list(samples.values())[number % len(samples)]
        histogram = Histogram()
        histogram.update(x[number % len(x)] * np.float32(rng.uniform(0.5, 4)))
        histograms.append(histogram)
    return histograms


def ranges(histograms: list[Histogram], method: str) -> list[float]:
    return [float(amax_from_histogram(histogram, method)) for histogram in histograms]


def main() -> None:
    rng = np.random.default_rng(0)
    samples = tensors(rng)
    time_updates(samples)
    histograms = many_histograms(samples, rng)
    few = histograms[:COMPARED]
    loops = {"mse": loop_mse, "entropy": loop_entropy}
    for method in METHODS:
        taken = seconds(partial(ranges, histograms, method))
        line = f"method  {method:12s} {taken:7.3f} s for {QUANTIZERS} histograms"
        if method in loops:
            quick = seconds(partial(ranges, few, method), repeats=3)
            start = time.perf_counter()
            expected = [float(np.float32(loops[method](histogram))) for histogram in few]
            slow = time.perf_counter() - start
            if ranges(few, method) != expected:
                raise SystemExit(f"{method}: the loops found {expected}, the vectorised method {ranges(few, method)}")
            line += f", {slow / quick:6.0f} times faster than plain loops ({slow / COMPARED:.2f} s per histogram)"
        print(line)


if __name__ == "__main__":
    main()
