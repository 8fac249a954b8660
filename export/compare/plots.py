"""The figures of the page, drawn by matplotlib as SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from export.compare.report import Report
from export.compare.table import row_name

COLORS = {"pytorch": "#d1495b", "tensorflow": "#b8860b", "onnxruntime": "#1f6fb2", "openvino": "#2e8b57"}
MARKERS = {"fp32": "o", "int8": "s", "int8-dynamic": "D"}
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # names of checkpoints are no formulae, whatever they hold
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "svg.fonttype": "path",  # looks the same everywhere
    "svg.hashsalt": "twinquant",
}


def accuracy_against_latency(report: Report, shape: str) -> str:
    """Main score and median latency of every row, a panel per number of threads."""
    plt = _pyplot()
    metric, counts = report["main_metric"], report["settings"]["threads"]
    figure, axes = plt.subplots(1, len(counts), figsize=(6.4 * len(counts), 4.6), squeeze=False, sharey=True)
    named = []
    for axis, threads in zip(axes[0], counts, strict=True):
        points = []
        for row in report["rows"]:
            found = row["latency"].get(str(threads), {}).get(shape)
            if found is not None:
                points.append((found["p50_ms"], row["scores"][metric], row))
        for x, y, row in points:
            color, marker = COLORS[row["runtime"]], MARKERS[row["precision"]]
            hollow = row["precision"] == "fp32"
            axis.plot(x, y, marker, color=color, markersize=8, markerfacecolor="white" if hollow else color, mew=1.8)
        axis.set(xscale="log", xlabel="median latency, ms (log scale; left is faster)", title=_threads(threads))
        axis.set_ylabel(f"{metric}, %" if axis is axes[0][0] else "")
        axis.grid(color="#e6e6e6", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.margins(x=0.3, y=0.22)
        axis.xaxis.set_major_formatter(plt.FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(plt.FuncFormatter(_minor_label))
        named.append([(x, y, row_name(report, row), COLORS[row["runtime"]]) for x, y, row in points])
    figure.tight_layout()
    figure.canvas.draw()
    for axis, labels in zip(axes[0], named, strict=True):
        _label_points(axis, labels)
    return _svg(figure)


def latency_bars(report: Report) -> str:
    """Median latencies, a panel per shape, a bar per number of threads; the line reaches to the 90th percentile."""
    plt = _pyplot()
    shapes, counts = report["settings"]["batches"], report["settings"]["threads"]
    rows = [row for row in report["rows"] if row["latency"]]
    height = 1.1 + len(rows) * (0.16 + 0.2 * len(counts))
    figure, axes = plt.subplots(1, len(shapes), figsize=(12.8, height), squeeze=False, sharey=True)
    for axis, shape in zip(axes[0], shapes, strict=True):
        for number, threads in enumerate(counts):
            for place, row in enumerate(rows):
                found = row["latency"].get(str(threads), {}).get(shape)
                if found is None:
                    continue
                y = place + (number - (len(counts) - 1) / 2) * 0.8 / len(counts)
                width = 0.72 / len(counts)
                alpha = 1.0 - 0.5 * number / max(1, len(counts) - 1)
                axis.barh(y, found["p50_ms"], width, color=COLORS[row["runtime"]], alpha=alpha)
                axis.plot([found["p50_ms"], found["p90_ms"]], [y, y], color="#333333", linewidth=1)
                axis.annotate(f"{found['p50_ms']:.1f}", (max(found["p50_ms"], found["p90_ms"]), y), (4, 0),
                              textcoords="offset points", va="center", fontsize=8.5, color="#333333")  # fmt: skip
        axis.set(title=f"batch {shape}", xlabel="ms")
        axis.margins(x=0.16)
        _bar_axis(axis, [row_name(report, row) for row in rows])
    if len(counts) > 1:
        words = ", ".join(_threads(threads) for threads in counts)
        figure.text(0.99, 0.005, f"bars of a row from above, dark to light: {words}", ha="right", fontsize=9)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    return _svg(figure)


def size_bars(report: Report) -> str:
    """File sizes and largest resident memory."""
    plt = _pyplot()
    rows = [row for row in report["rows"] if "scores" in row]
    figure, axes = plt.subplots(1, 2, figsize=(12.8, 1.1 + 0.36 * len(rows)), sharey=True)
    panels = (("file_bytes", "file, MB"), ("peak_rss_bytes", "largest resident memory of the process, MB"))
    for axis, (key, title) in zip(axes, panels, strict=True):
        for place, row in enumerate(rows):
            if row[key] is None:
                continue
            value = row[key] / 1e6
            axis.barh(
                place, value, 0.66, color=COLORS[row["runtime"]], alpha=1.0 if row["precision"] != "fp32" else 0.5
            )
            axis.annotate(f"{value:.1f}" if key == "file_bytes" else f"{value:.0f}", (value, place), (4, 0),
                          textcoords="offset points", va="center", fontsize=9, color="#333333")  # fmt: skip
        axis.set(title=title)
        axis.margins(x=0.12)
        _bar_axis(axis, [row_name(report, row) for row in rows])
    figure.tight_layout()
    return _svg(figure)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    plt.rcdefaults()
    plt.rcParams.update(_STYLE)
    return plt


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _minor_label(value: float, _: object) -> str:
    """Labels at 2 and 5 between the powers of ten."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def _bar_axis(axis: Any, names: Sequence[str]) -> None:
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="x", color="#e6e6e6", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines["left"].set_visible(False)
    axis.tick_params(axis="y", length=0)


def _label_points(axis: Any, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Writes a name beside every point, where it covers the least of what is there already."""
    renderer = axis.figure.canvas.get_renderer()
    places = [axis.transData.transform((x, y)) for x, y, _, _ in points]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in places]
    frame = axis.get_window_extent(renderer)
    for x, y, name, color in sorted(points, key=lambda point: -point[1]):
        best: tuple[float, tuple[float, float, str]] | None = None
        for dy in (0, 11, -11, 22, -22, 33, -33, 44, -44, 58, -58, 72, -72):
            for dx, side in ((9, "left"), (-9, "right")):
                note = axis.annotate(
                    name, (x, y), (dx, dy), textcoords="offset points", ha=side, va="center", fontsize=9
                )
                box = note.get_window_extent(renderer)
                note.remove()
                edges = (box.x0 - 1, box.y0 - 1, box.x1 + 1, box.y1 + 1)
                covered = sum(_overlap(edges, other) for other in taken)
                outside = max(0.0, frame.x0 - box.x0) + max(0.0, box.x1 - frame.x1 - 20) + max(0.0, frame.y0 - box.y0)
                cost = covered + 200 * outside + 2 * abs(dy)
                if best is None or cost < best[0]:
                    best = cost, (dx, dy, side)
        assert best is not None
        right, up, side = best[1]
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.7, "shrinkB": 5} if abs(up) > 11 else None
        note = axis.annotate(name, (x, y), (right, up), textcoords="offset points", ha=side, va="center", fontsize=9,
                             color=color, arrowprops=line)  # fmt: skip
        box = note.get_window_extent(renderer)
        taken.append((box.x0, box.y0, box.x1, box.y1))


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    """Area that two boxes (left, bottom, right, top) share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _svg(figure: Any) -> str:
    import matplotlib.pyplot as plt

    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    return text.getvalue()
