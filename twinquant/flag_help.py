"""The text of `--help`: the head, then the flags by phase, within 100 columns."""

import itertools
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
            for text, alike in itertools.groupby(rows, _explanation):
                lines += [*map(_usage, alike), *_wrapped(text)]
    return "\n".join(lines)


def _usage(flag: Flag) -> str:
    value = "{" + ",".join(flag.choices) + "}" if flag.choices else flag.metavar or _METAVARS.get(flag.type, "")
    return f"  --{flag.name}" + (f" {value}" if value else "")


def _explanation(flag: Flag) -> str:
    """What follows the usage; flags of equal explanations in a row, as of one old script, share it."""
    text = flag.help
    # Of what has no effect, the default is of no interest.
    default = "" if flag.quiet else _format_default(flag)
    if default:
        text += f" Default: {default}."
    if flag.aliases:
        text += " Also: " + ", ".join(f"--{alias}" for alias in flag.aliases) + "."
    return text


def _wrapped(text: str) -> list[str]:
    indent = " " * 6
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _format_default(flag: Flag) -> str:
    if flag.default is None or flag.default == ():
        return ""
    if flag.type is bool:
        return "on" if flag.default else "off"
    if flag.type is list:
        return " ".join(flag.default)
    return f"{flag.default:g}" if flag.type is float and flag.default < 1 else str(flag.default)
