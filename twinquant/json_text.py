"""JSON that a user gives us, read with every fault told as one sentence."""

import json
from typing import Any

from twinquant.errors import UserError

DEEPEST = 100
"""Levels of nesting that are read. No file of ours has more than six; Python's own limit, some hundreds, is met later,
in the middle of writing such a value again."""


def parse_json(content: str | bytes, path: object, found: str = "is not a JSON file") -> Any:
    """The value that `content` holds.

    Args:
        content: text, or bytes in UTF-8.
        path: the file, for messages.
        found: what a message says of a file that is no JSON: "is truncated or is not a JSON file".

    Raises UserError for what is no JSON, is nested more than DEEPEST levels, has a number of thousands of digits, or a
    string that is no text (half of a surrogate pair).
    """
    try:
        value = json.loads(content)
    except RecursionError:
        raise UserError(f"{path} {found}: it is nested more than {DEEPEST} levels deep") from None
    except ValueError as error:  # no JSON, no UTF-8, or a number of more digits than Python converts
        raise UserError(f"{path} {found}: {fault_of(error)}") from error
    _check(value, path)
    return value


def fault_of(error: ValueError) -> str:
    """What is wrong, as a user sees it: Python's own sentence about many digits names a function of Python."""
    return "a number in it has thousands of digits" if str(error).startswith("Exceeds the limit") else str(error)


def _check(value: Any, path: object) -> None:
    level = [value]
    for _ in range(DEEPEST):
        for text in level:
            if isinstance(text, str) and not text.isascii() and any("\ud800" <= one <= "\udfff" for one in text):
                raise UserError(f"{path} holds half of a surrogate pair ({text!a:.60}), which is not text")
        inside: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inside += [*each, *each.values()]
            elif isinstance(each, list):
                inside += each
        level = inside
        if not level:
            return
    raise UserError(f"{path} is nested more than {DEEPEST} levels deep")
