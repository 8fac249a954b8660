"""report.html: the table and the figures on one page that needs no other file."""

from html import escape
from itertools import groupby

from export.compare.report import Report
from export.compare.table import MEANINGS, columns, note_lines, row_name, setting_lines, unmeasured, words
from reports.html import bullets, figure, page_start
from twinquant.machine import machine_lines

_STYLE = """
tr.fp32 td:first-child { color: #444; } tr.new td { border-top: 2px solid #999; }
td small { color: #666; } td b { display: block; font-weight: 600; } tr.base b { color: #666; font-weight: 400; }
td.why { text-align: left; white-space: normal; color: #8a1c1c; }
"""


def make_page(report: Report) -> str:
    """The page's HTML."""
    names = ", ".join(report["checkpoints"])
    settings = report["settings"]
    machine = machine_lines(report["machine"])
    parts = [
        *page_start(f"{names}, compared", _STYLE),
        f"<h1>{escape(names)}</h1>",
        f'<p class="lead">{report["examples"]} examples of {escape(settings["data"])}, on {escape(machine[0])}</p>',
        "<h2>Accuracy, agreement, size and speed</h2>",
        _table(report),
    ]
    parts += ["<h3>In words</h3>", *bullets(words(report)), "<h3>Notes</h3>", *bullets(note_lines(report))]
    parts += _figures(report)
    parts += ["<h2>What was measured</h2>", *bullets(setting_lines(report))]
    parts.append("<h2>What the columns mean</h2><ul>")
    parts += [f"<li><strong>{escape(name)}</strong>: {escape(meaning)}</li>" for name, meaning in MEANINGS]
    parts += ["</ul>", "<h2>The machine</h2>", *bullets(machine), "</body></html>"]
    return "\n".join(parts) + "\n"


def _table(report: Report) -> str:
    shown = columns(report)
    groups = [(name, list(members)) for name, members in groupby(shown, key=lambda column: column.group)]
    begins = {id(members[0]) for _, members in groups}
    lines = ['<div class="scroll"><table><thead>', '<tr class="groups"><th></th>']
    lines += [f'<th class="begin" colspan="{len(members)}">{escape(name)}</th>' for name, members in groups]
    lines.append("</tr><tr><th>model</th>")
    lines += [f"<th{_begin(column, begins)}>{escape(column.name)}</th>" for column in shown]
    lines.append("</tr></thead><tbody>")
    before = None
    for row in report["rows"]:
        classes = [row["precision"]] + ["base"] * (row["id"] == report["baseline"])
        classes += ["new"] * (before is not None and before != row["checkpoint"])
        before = row["checkpoint"]
        lines.append(f'<tr class="{" ".join(classes)}"><td>{escape(row_name(report, row))}</td>')
        if "scores" in row:
            lines += [f"<td{_begin(column, begins)}>{_cell(column.text(row))}</td>" for column in shown]
        else:
            lines.append(f'<td class="why begin" colspan="{len(shown)}">not measured: {escape(row["reason"])}</td>')
        lines.append("</tr>")
    lines.append("</tbody></table></div>")
    incomplete = [row for row in unmeasured(report) if "scores" in row]
    lines += bullets([f"{row_name(report, row)} was not measured to the end: {row['reason']}" for row in incomplete])
    return "\n".join(lines)


def _begin(column: object, begins: set[int]) -> str:
    return ' class="begin"' if id(column) in begins else ""


def _cell(text: str) -> str:
    """Latencies in two lines: the ratio, then the milliseconds."""
    if not text.endswith("x)"):
        return escape(text)
    times, _, fast = text[:-2].partition(" (")
    return f"<b>{escape(fast)}×</b><small>{escape(times)}</small>"


def _figures(report: Report) -> list[str]:
    from export.compare import plots

    if report["baseline"] is None:
        return []
    first = report["settings"]["batches"][0]
    parts = []
    if report["main_metric"] is not None:
        text = f"Hollow: fp32; square: int8; diamond: int8-dynamic. Batch {first}. Up and to the left is better."
        parts += _figure("Accuracy against latency", plots.accuracy_against_latency(report, first), text)
    text = "Median; the thin line reaches to the 90th percentile. int8 of the two backends is simulated."
    parts += _figure("Latency", plots.latency_bars(report), text)
    return parts + _figure("Size", plots.size_bars(report), "Pale: fp32.")


def _figure(title: str, svg: str, caption: str) -> list[str]:
    return [
        f"<h2>{escape(title)}</h2>",
        *figure(svg.encode("utf-8"), "svg+xml", f"{title}; the numbers are in the table", caption),
    ]
