"""--calib_report: index.html with every quantizer's histogram, the ranges by method and what they cost."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from quantization.calibration import METHODS
from reports.calibration_numbers import CHOSEN, Choice, TensorNumbers, short_name
from reports.calibration_plots import COLORS, layer_figure
from reports.html import bullets, figure, page_start
from twinquant.files import make_folder, write_bytes_atomically, write_json_atomically

PAGE, NUMBERS = "index.html", "calibration_report.json"
WORST = 10
_STYLE = """
.key span { display: inline-block; margin-right: 1.4em; } .key i { display: inline-block; width: 1.8em; height: 0;
  border-top: 3px solid; margin-right: .4em; vertical-align: middle; }
th.sorts { cursor: pointer; } th.sorts:hover { background: #e8e8e8; } th[aria-sort=ascending]::after { content: " ▲"; }
th[aria-sort=descending]::after { content: " ▼"; } tr.off td { color: #999; }
td.best { font-weight: 600; } nav a { margin-right: .7em; } figure img { max-width: min(100%, 1240px); }
.tall { max-height: 75vh; overflow: auto; } .tall thead th { position: sticky; top: 0; z-index: 1; }
"""
# Sorts by the number in data-v, or by text; a second click turns the order around.
_SCRIPT = """
for (const table of document.querySelectorAll("table.sortable"))
  table.querySelectorAll("th.sorts").forEach((head, column) => head.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") === "descending";
    table.querySelectorAll("th.sorts").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = row => { const cell = row.cells[column]; const n = cell.dataset.v;
                           return n === undefined ? cell.textContent : Number(n); };
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const x = value(a), y = value(b); const order = x < y ? -1 : x > y ? 1 : 0; return up ? order : -order; });
    table.tBodies[0].append(...rows);
  }));
"""


def write_calibration_report(folder: Path, numbers: Sequence[TensorNumbers], facts: Mapping[str, Any]) -> Path:
    """Writes the page, a PNG per layer and the numbers as JSON; returns the page's path.

    Args:
        facts: how the calibration was made, as calibration.json tells it, with "percentile" the one of that method's
            lines also where another was chosen.

    Raises UserError where the folder cannot be written.
    """
    make_folder(folder)
    images = {}
    for layer, tensors in groupby(numbers, key=lambda tensor: tensor.layer):
        images[layer] = layer_figure(list(tensors))
        write_bytes_atomically(folder / f"{_layer_id(layer)}.png", images[layer][0])
    told = [_as_values(tensor) for tensor in numbers]
    write_json_atomically(folder / NUMBERS, {**facts, "tensors": told})
    page = folder / PAGE
    write_bytes_atomically(page, make_page(numbers, facts, images).encode("utf-8"))
    return page


def make_page(
    numbers: Sequence[TensorNumbers], facts: Mapping[str, Any], images: Mapping[int | None, tuple[bytes, int, int]]
) -> str:
    """The page's HTML; `images`: by layer, a PNG with its width and height."""
    method = facts["calib_method"]
    on = [tensor for tensor in numbers if tensor.enabled]
    parts = page_start(f"Calibration of {facts['checkpoint']}", _STYLE)
    parts += [
        f"<h1>Calibration of {escape(str(facts['checkpoint']))}</h1>",
        f'<p class="lead">Mode {escape(str(facts["quant_mode"]))}, method {escape(_method(method, facts))}, '
        f"{facts['batches']} batches of {facts['batch_size']} of {escape(str(facts['data']))}: "
        f"{len(numbers)} tensors, {len(on)} of them quantized in this mode.</p>",
        "<h2>Where quantization costs most</h2>",
        "<p>The tensors with the largest mean squared error, as a share of their mean square, by the chosen range.</p>",
        *_worst(on),
        "<h2>Ranges by method</h2>",
        "<p>Click a heading to sort. <b>Bold</b>: the method with the least error. Gray: off in this mode.</p>",
        *_table(numbers, facts),
        "<h2>Histograms</h2>",
        "<p>Counts of |x|, on a logarithmic scale, up to the largest value; a line per range.</p>",
        _key(facts),
        "<nav>",
        *(f'<a href="#{_layer_id(layer)}">{_layer_name(layer)}</a>' for layer in images),
        "</nav>",
    ]
    for layer, (image, width, height) in images.items():
        title = _layer_name(layer)
        # With its size the browser keeps the place free, and draws what is scrolled to.
        size = f'loading="lazy" decoding="async" width="{width}" height="{height}"'
        parts.append(f'<h3 id="{_layer_id(layer)}">{title}</h3>')
        parts += figure(image, "png", f"Histograms of {title}; the numbers are in the table", "", size)
    parts += ["<h2>What is shown</h2>", *bullets(_notes(numbers)), f"<script>{_SCRIPT}</script></body></html>"]
    return "\n".join(parts) + "\n"


def _worst(on: Sequence[TensorNumbers]) -> list[str]:
    lines = ["<table><thead><tr><th>tensor</th><th>error / power</th><th>chosen amax</th><th>largest |x|</th>"]
    lines.append("<th>clipped</th><th>least error by</th></tr></thead><tbody>")
    for tensor in sorted(on, key=lambda tensor: -tensor.share_of_error)[:WORST]:
        chosen, best = tensor.choices[CHOSEN], best_method(tensor)
        gain = chosen.error / tensor.choices[best].error if tensor.choices[best].error > 0 else 1.0
        advice = "the chosen" if gain < 1.005 else f"{best}: {gain:.2f} times less"
        cells = [_percent(tensor.share_of_error), f"{chosen.amax:.4g}", f"{tensor.histogram.amax:.4g}"]
        cells += [_percent(chosen.clipped), advice]
        lines.append(f"<tr><td>{_full_name(tensor)}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return [*lines, "</tbody></table>"]


def _table(numbers: Sequence[TensorNumbers], facts: Mapping[str, Any]) -> list[str]:
    names = [CHOSEN, *METHODS]
    heads = "".join(
        f'<th class="begin" colspan="3">{CHOSEN if name == CHOSEN else escape(_method(name, facts))}</th>'
        for name in names
    )
    columns = "".join(
        '<th class="sorts begin">amax</th><th class="sorts">clipped</th><th class="sorts">MSE</th>' for _ in names
    )
    lines = ['<div class="scroll tall"><table class="sortable"><thead>']
    lines += [f'<tr class="groups"><th></th><th></th>{heads}</tr>']
    lines += [f'<tr><th class="sorts">tensor</th><th class="sorts">error / power</th>{columns}</tr></thead><tbody>']
    for number, tensor in enumerate(numbers):
        best = best_method(tensor)
        title = escape("; ".join([tensor.tensor, *tensor.scopes]))
        row = [f'<td data-v="{number}" title="{title}">{_full_name(tensor)}</td>']
        row.append(f'<td data-v="{tensor.share_of_error:.9g}">{_percent(tensor.share_of_error)}</td>')
        for name in names:
            row += _cells(tensor.choices[name], name == best)
        lines += ["<tr>" if tensor.enabled else '<tr class="off">', "".join(row), "</tr>"]
    return [*lines, "</tbody></table></div>"]


def _cells(choice: Choice, is_best: bool) -> list[str]:
    best = ' class="best"' if is_best else ""
    return [
        f'<td class="begin" data-v="{choice.amax:.9g}">{choice.amax:.4g}</td>',
        f'<td data-v="{choice.clipped:.9g}">{_percent(choice.clipped)}</td>',
        f'<td{best} data-v="{choice.error:.9g}">{choice.error:.3g}</td>',
    ]


def best_method(tensor: TensorNumbers) -> str:
    """The method whose range has the least mean squared error; the first of equals in the order of METHODS."""
    return min(METHODS, key=lambda method: tensor.choices[method].error)


def _notes(numbers: Sequence[TensorNumbers]) -> list[str]:
    notes = [
        "clipped: the share of the observed values above amax. MSE: the mean squared difference of a value and what "
        "the integers stand for, every bin of the histogram (2048 up to a power of two) standing for its center.",
        "The chosen range is the method's, but where the mode fuses query, key and value (their largest) or fixes a "
        "scale. All ranges are rounded up to 12 significant bits.",
        "A panel whose name ends in (+n) is of one tensor that n more quantizers see, which share its range.",
        "Weights are not shown: their range is always their largest magnitude.",
    ]
    empty = [tensor.name for tensor in numbers if tensor.histogram.amax == 0]
    return notes + ([f"All zeros: {', '.join(empty)}."] if empty else [])


def _key(facts: Mapping[str, Any]) -> str:
    names = [CHOSEN, *METHODS]
    marks = "".join(
        f'<span><i style="border-color: {COLORS[name]}; border-top-style: {"solid" if name == CHOSEN else "dashed"}">'
        f"</i>{CHOSEN if name == CHOSEN else escape(_method(name, facts))}</span>"
        for name in names
    )
    return f'<p class="key">{marks}</p>'


def _method(name: str, facts: Mapping[str, Any]) -> str:
    return f"percentile {facts['percentile']:g}" if name == "percentile" else name


def _full_name(tensor: TensorNumbers) -> str:
    others = ", ".join(short_name(scope) for scope in tensor.scopes[1:])
    layer = "" if tensor.layer is None else f"{tensor.layer} "
    more = f" <small>+{len(tensor.scopes) - 1}</small>" if others else ""
    return f"{layer}{escape(tensor.name)}{more}"


def _layer_id(layer: int | None) -> str:
    return "model" if layer is None else f"layer_{layer:02d}"


def _layer_name(layer: int | None) -> str:
    return "After the last layer" if layer is None else f"Layer {layer}"


def _percent(share: float) -> str:
    return "0" if share == 0 else f"{100 * share:.3g} %"


def _as_values(tensor: TensorNumbers) -> dict[str, Any]:
    return {
        "quantizers": list(tensor.scopes),
        "enabled": list(tensor.enabled),
        "largest": float(tensor.histogram.amax),
        "mean_square": tensor.power,
        "choices": {
            name: {"amax": choice.amax, "clipped_fraction": choice.clipped, "mean_squared_error": choice.error}
            for name, choice in tensor.choices.items()
        },
    }
