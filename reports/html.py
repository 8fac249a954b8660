"""What the pages share: their look, lists and images."""

import base64
import importlib.util
from collections.abc import Iterable
from html import escape

STYLE = """
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
figure { margin: 1em 0; } figure img { max-width: 100%; height: auto; }
figcaption { color: #444; font-size: 13px; }
"""


def drawing_problem() -> str:
    """Why nothing can be drawn; "" where it can."""
    if importlib.util.find_spec("matplotlib") is not None:
        return ""
    return "matplotlib, which draws it, is not installed; pip install '.[export]' installs it"


def page_start(title: str, more_style: str = "") -> list[str]:
    """The lines of a page up to its first heading."""
    return [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{STYLE}{more_style}</style></head><body>",
    ]


def figure(image: bytes, kind: str, text: str, caption: str, attributes: str = "") -> list[str]:
    """An image inside the page, as one of its own: the names inside one SVG do not meet those of another.

    Args:
        kind: "svg+xml" or "png".
        text: what the image shows, for those who do not see it.
        attributes: of the image, such as its size.
    """
    data = base64.b64encode(image).decode("ascii")
    return [
        "<figure>",
        f'<img alt="{escape(text)}" {attributes} src="data:image/{kind};base64,{data}">',
        f"<figcaption>{escape(caption)}</figcaption></figure>",
    ]


def bullets(texts: Iterable[str]) -> list[str]:
    """A list; nothing where there are no texts."""
    lines = [f"<li>{escape(text)}</li>" for text in texts]
    return ["<ul>", *lines, "</ul>"] if lines else []
