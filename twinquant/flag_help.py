"""The text of `--help`: the head, then the flags by phase, within 100 columns."""

import textwrap
from collections.abc import Sequence

from twinquant.flags import GROUPS, Flag

WIDTH = 100
_METAVARS = {int: "N", float: "X", str: "TEXT", list: "WORD [WORD ...]"}


def format_help(flags: Sequence[Flag], program: str, head: str) -> str:
    """The whole help text; `head` is printed as it is, above the flags."""
    lines = [head.strip("\n"), ""]
    lines += textwrap.wrap(
        f"Flags of {program}, by phase. --flag=value and --flag value are the same, so are one dash and two, and "
        "hyphens and underscores. A yes/no flag is switched on by --flag or --flag=true, off by --noflag or "
        "--flag=false.",
        WIDTH,
    )
    for group in GROUPS:
        rows = [flag for flag in flags if flag.group == group]
        if rows:
            lines += ["", f"{group}:"]
            for flag in rows:
                lines += _format_flag(flag)
    return "\n".join(lines)


def _format_flag(flag: Flag) -> list[str]:
    value = "{" + ",".join(flag.choices) + "}" if flag.choices else flag.metavar or _METAVARS.get(flag.type, "")
    usage = f"  --{flag.name}" + (f" {value}" if value else "")
    text = flag.help
    default = _format_default(flag)
    if default:
        text += f" Default: {default}."
    if flag.aliases:
        text += " Also: " + ", ".join(f"--{alias}" for alias in flag.aliases) + "."
    indent = " " * 6
    wrapped = textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return [usage, *wrapped]


def _format_default(flag: Flag) -> str:
    if flag.default is None or flag.default == ():
        return ""
    if flag.type is bool:
        return "on" if flag.default else "off"
    if flag.type is list:
        return " ".join(flag.default)
    return f"{flag.default:g}" if flag.type is float and flag.default < 1 else str(flag.default)
