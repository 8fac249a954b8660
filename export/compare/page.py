"""report.html: the table and the figures on one page that needs no other file."""

import base64
import importlib.util
from html import escape
from itertools import groupby

from export.compare.report import Report
from export.compare.table import MEANINGS, columns, note_lines, row_name, setting_lines, unmeasured, words
from twinquant.machine import machine_lines

_STYLE = """
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", Arial, sans-serif; color: #1b1b1b;
       background: #fff; max-width: 1440px; margin: 2em auto; padding: 0 1.5em; }
h1 { font-size: 1.7em; margin: 0 0 .2em; } h2 { font-size: 1.2em; margin: 2em 0 .5em; }
h3 { font-size: 1em; margin: 1em 0 .2em; } ul { margin: 0; }
p.lead { margin: 0; color: #444; } ul { padding-left: 1.2em; } li { margin: .25em 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .35em .5em; text-align: right; white-space: nowrap; border-bottom: 1px solid #e2e2e2; }
th { font-weight: 600; background: #f5f5f5; border-bottom: 1px solid #bbb; }
tr.groups th { text-align: center; border-bottom: none; color: #444; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
th:first-child { background: #f5f5f5; } .begin { border-left: 1px solid #ccc; }
tr.fp32 td:first-child { color: #444; } tr.new td { border-top: 2px solid #999; }
td small { color: #666; } td b { display: block; font-weight: 600; } tr.base b { color: #666; font-weight: 400; }
td.why { text-align: left; white-space: normal; color: #8a1c1c; }
figure { margin: 1em 0; } figure img { width: 100%; max-width: 1280px; height: auto; }
figcaption { color: #444; font-size: 13px; }
"""


def page_problem() -> str:
    """Why no page can be made; "" where it can."""
    if importlib.util.find_spec("matplotlib") is not None:
        return ""
    return "matplotlib, which draws it, is not installed; pip install '.[export]' installs it"


def make_page(report: Report) -> str:
    """The page's HTML."""
    names = ", ".join(report["checkpoints"])
    settings = report["settings"]
    machine = machine_lines(report["machine"])
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(names)}, compared</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{escape(names)}</h1>",
        f'<p class="lead">{report["examples"]} examples of {escape(settings["data"])}, on {escape(machine[0])}</p>',
        "<h2>Accuracy, agreement, size and speed</h2>",
        _table(report),
    ]
    parts += ["<h3>In words</h3>", *_list(words(report)), "<h3>Notes</h3>", *_list(note_lines(report))]
    parts += _figures(report)
    parts += ["<h2>What was measured</h2>", *_list(setting_lines(report))]
    parts.append("<h2>What the columns mean</h2><ul>")
    parts += [f"<li><strong>{escape(name)}</strong>: {escape(meaning)}</li>" for name, meaning in MEANINGS]
    parts += ["</ul>", "<h2>The machine</h2>", *_list(machine), "</body></html>"]
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
    lines += _list([f"{row_name(report, row)} was not measured to the end: {row['reason']}" for row in incomplete])
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
    # As an image of its own, so that the names inside one SVG do not meet those of another.
    data = base64.b64encode(svg.encode("utf-8")).decode("ascii")
    return [
        f"<h2>{escape(title)}</h2><figure>",
        f'<img alt="{escape(title)}; the numbers are in the table" src="data:image/svg+xml;base64,{data}">',
        f"<figcaption>{escape(caption)}</figcaption></figure>",
    ]


def _list(texts: list[str]) -> list[str]:
    return ["<ul>", *(f"<li>{escape(text)}</li>" for text in texts), "</ul>"] if texts else []
