"""One .json file in the place of the flags, as Hugging Face's scripts take it, and flags behind it."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from twinquant.errors import UserError
from twinquant.json_text import fault_of

_NAME = re.compile(r"(--?)?[A-Za-z][A-Za-z0-9_-]*")


def split_arguments_file(argv: Sequence[str]) -> tuple[tuple[str, list[str]], list[str]]:
    """The file that a command line begins with, the words it stands for, and the flags behind it.

    A first word that is the name of a .json file is one of arguments; else the file is ("", []), and all is flags.

    The file holds one object: keys are flags (dashes in front are optional), values are true, false, numbers, strings,
    lists of these, or an object, which is passed on as JSON; null, an empty list and an empty object are a flag that is
    not given. A key that occurs twice is passed on twice.

    Raises UserError where the file is missing, is not JSON in UTF-8, or holds anything else.
    """
    if not argv or argv[0].startswith("-") or not argv[0].endswith(".json"):
        return ("", []), list(argv)
    path = argv[0]
    words: list[str] = []
    for key, value in _read_pairs(path):
        if not _NAME.fullmatch(key):
            raise UserError(f"{path}: the key {key!r} is not the name of a flag, such as do_train.")
        flag = "--" + key.lstrip("-")
        if value is None or value == ():
            continue
        if isinstance(value, list):
            items = [_as_word(path, key, item) for item in value]
            if any(item.startswith("-") for item in items):
                raise UserError(f"{path}: the list of {key!r} holds a word with a dash in front, which is a flag.")
            # What the Trainer writes for "none"; not given at all, --logging_dir would ask for event files.
            items = ["none"] if not items and key.lstrip("-") == "report_to" else items
            words += [flag, *items] if items else []
        elif isinstance(value, tuple):
            words.append(f"{flag}={json.dumps(_as_object(value))}")
        else:
            words.append(f"{flag}={_as_word(path, key, value)}")
    return (path, words), list(argv[1:])


def _read_pairs(path: str) -> list[tuple[str, Any]]:
    """The keys and values of the file's object, in order, repeated keys included."""
    try:
        # A JSON object becomes a tuple of pairs here, so that it differs from a JSON list and keeps repeated keys.
        content = json.loads(Path(path).read_bytes(), object_pairs_hook=tuple, parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; a file of arguments is expected.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise UserError(f"{path} is not a JSON file of arguments: {fault_of(error)}.") from None
    except RecursionError:
        raise UserError(f"{path} is not a JSON file of arguments: it is nested too deeply.") from None
    if not isinstance(content, tuple):
        raise UserError(f"{path} must hold a JSON object of arguments, found a {type(content).__name__}.")
    return list(content)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _as_object(value: Any) -> Any:
    """A value of the file with its objects as dictionaries again."""
    if isinstance(value, tuple):
        return {key: _as_object(item) for key, item in value}
    return [_as_object(item) for item in value] if isinstance(value, list) else value


def _as_word(path: str, key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | str):
        return str(value)
    found = "null" if value is None else "an object" if isinstance(value, tuple) else "a list"
    raise UserError(f"{path}: the value of {key!r} is or holds {found}; expected true, false, a number or a text.")
