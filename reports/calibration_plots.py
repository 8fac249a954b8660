"""The histograms of a calibration, small multiples by layer, drawn by matplotlib as PNG."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from quantization.histogram import Histogram
from reports.calibration_numbers import CHOSEN, TensorNumbers

COLORS = {"max": "#666666", "percentile": "#1f6fb2", "mse": "#2e8b57", "entropy": "#b8860b", CHOSEN: "#d1495b"}
_DASHES = {"max": (0, (1, 1.2)), "percentile": (0, (4, 1.5)), "mse": (0, (3, 1, 1, 1)), "entropy": (0, (2, 2))}
COLUMNS = 5
BARS = 128  # of the 2048 bins, as many as a panel has room for
DPI = 80


def layer_figure(numbers: Sequence[TensorNumbers]) -> tuple[bytes, int, int]:
    """A panel for every tensor: counts of |x| (log scale) and the ranges; the PNG, its width and height in pixels."""
    # An object of its own, not pyplot's: nothing of the caller's drawing is touched.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(numbers) // COLUMNS)
    width, height = 3.1 * COLUMNS, 1.75 * rows
    figure = Figure(figsize=(width, height), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    # Fixed margins, in inches: matplotlib's own layouts draw every panel several times to find them.
    figure.subplots_adjust(
        left=0.35 / width, right=1 - 0.1 / width, bottom=0.3 / height, top=1 - 0.3 / height, wspace=0.16, hspace=0.5
    )
    for place, tensor in enumerate(numbers):
        _panel(figure.add_subplot(rows, COLUMNS, place + 1), tensor)
    data = io.BytesIO()
    canvas.print_png(data, metadata={"Software": None})
    return data.getvalue(), round(width * DPI), round(height * DPI)


def bars(histogram: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """Edges [n + 1] and counts [n] of at most BARS bars that reach to the largest value."""
    used = int(np.flatnonzero(histogram.counts)[-1]) + 1
    joined = -(-used // BARS)
    count = -(-used // joined)
    counts = np.zeros(count * joined, np.int64)
    counts[:used] = histogram.counts[:used]
    return np.arange(count + 1) * joined * histogram.width, counts.reshape(count, joined).sum(axis=1)


def _panel(axis: Any, tensor: TensorNumbers) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator

    edges, counts = bars(tensor.histogram)
    on = bool(tensor.enabled)
    axis.stairs(counts, edges, fill=True, color="#9db8cf" if on else "#dddddd")
    axis.set_yscale("log")
    axis.set_ylim(0.7, max(10.0, 2.0 * counts.max()))
    axis.yaxis.set_major_locator(LogLocator(numticks=4))
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.minorticks_off()
    for name, choice in tensor.choices.items():
        if name == CHOSEN:
            axis.axvline(choice.amax, color=COLORS[name], linewidth=1.8, zorder=2)
        else:
            axis.axvline(choice.amax, color=COLORS[name], linewidth=1.1, linestyle=_DASHES[name], zorder=3)
    others = len(tensor.scopes) - 1
    title = tensor.name + (f" (+{others})" if others else "") + ("" if on else ", off")
    axis.set_title(title, fontsize=7.5, loc="left", color="#1b1b1b" if on else "#888888", pad=3)
    axis.tick_params(labelsize=6.5, length=2, pad=1.5, colors="#555555")
    axis.set_xlim(0, max(float(edges[-1]), tensor.choices[CHOSEN].amax) * 1.03 or 1.0)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color("#999999")
