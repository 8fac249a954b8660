"""Data files of texts and labels as tables of fields: csv, tsv, txt, json and json lines.

Everything is UTF-8, with or without a byte-order mark. Only "\\n" and "\\r\\n" end a line (in csv, a lone "\\r" too);
Unicode's line separators and the control characters that `str.splitlines` would cut at are part of the text. Quotes
have a meaning in csv alone; in tsv and txt they are characters like any other, as in the GLUE files, so one stray quote
never swallows the rows behind it.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from twinquant.errors import UserError
from twinquant.json_text import fault_of

logger = logging.getLogger("twinquant")

TXT_COLUMNS = ["text", "label"]  # a txt file usually has no header
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Table:
    """N rows of fields.

    names: the columns' names, unique. rows: N lists of as many fields; strings, or in JSON any value, None where the
    object lacks the key. lines: N numbers, from 1, of the line (in a JSON array: the item, as `unit` says) where a row
    begins. has_header: whether the file names its columns; else they are named by their position.
    """

    source: str
    names: list[str]
    rows: list[list[Any]]
    lines: list[int]
    unit: str = "line"
    has_header: bool = True

    def __len__(self) -> int:
        return len(self.rows)

    def at(self, row: int) -> str:
        """Where a row is, for messages: "train.csv, line 7"."""
        return f"{self.source}, {self.unit} {self.lines[row]}"

    def column(self, name: str) -> list[str]:
        """All fields of a column as strings; numbers and booleans of JSON as JSON writes them.

        Raises UserError where the table has no such column or a row lacks the field.
        """
        if name not in self.names:
            raise UserError(f"{self.source} has no column {name!r}; it has {listed(self.names)}")
        index = self.names.index(name)
        fields = [row[index] for row in self.rows]
        return [self._as_text(row, name, field) for row, field in enumerate(fields)]

    def _as_text(self, row: int, name: str, field: Any) -> str:
        if isinstance(field, str):
            if not field.isascii() and any("\ud800" <= character <= "\udfff" for character in field):
                raise UserError(f"{self.at(row)}: {name!r} holds half of a surrogate pair, which is not text")
            return field
        if field is None or isinstance(field, list | dict):
            found = "missing" if field is None else "a list or an object"
            raise UserError(f"{self.at(row)}: {name!r} is {found}; expected a string or a number")
        return json.dumps(field)


def listed(names: Sequence[str], limit: int = 20) -> str:
    """Names for a message, not more than `limit` of them."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + more


def read_text(path: str | Path, kind: str = "data file") -> str:
    """A text file without its byte-order mark.

    Raises UserError where it is missing, unreadable, empty, or not UTF-8 (naming the line).
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{kind} {path} does not exist") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise UserError(
            f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8 text; expected a file saved as UTF-8"
        ) from None
    except OSError as error:
        raise UserError(f"{kind} {path} cannot be read: {error.strerror}") from None
    if not text.strip():
        raise UserError(f"{kind} {path} is empty; expected rows of text")
    return text


def split_lines(text: str) -> list[str]:
    """The lines of a text without their ends; blank lines at the end of the text are left out."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and _is_blank(lines[-1]):
        lines.pop()
    return lines


def read_table(path: str | Path, header_words: Collection[str], is_header: Collection[str] = ()) -> Table:
    """A data file by its ending: .csv, .tsv, .txt (text, tab, label), .json (an array or lines), .jsonl.

    Args:
        header_words: lower-case names that columns usually have. A first row that holds one of them, in any case, is a
            header; so is one without any number. A first row with a number in it is data, and the columns are then
            named "0", "1", ... In txt a first row is a header only where all its fields are such words.
        is_header: names that the user chose: a first row that holds one is a header.

    Raises UserError naming file and line: not UTF-8, nothing in it, rows of different length, bad quotes, bad JSON.
    """
    ending = Path(path).suffix.lower()
    if ending not in (".csv", ".tsv", ".txt", ".json", ".jsonl"):
        raise UserError(f"data file {path}: expected a name that ends in .csv, .tsv, .txt, .json or .jsonl")
    text = read_text(path)
    if ending in (".json", ".jsonl"):
        return _json_table(str(path), text)
    rows, lines = _csv_rows(str(path), text) if ending == ".csv" else _tab_rows(str(path), text)
    first = [field.strip() for field in rows[0]]
    usual = [name.lower() in header_words for name in first]
    chosen = any(name in is_header for name in first)
    if ending == ".txt":
        has_header = chosen or all(usual)
        names = first if has_header else TXT_COLUMNS[: len(first)]
    else:
        has_header = chosen or any(usual) or not any(map(is_number, first))
        names = first if has_header else [str(index) for index in range(len(first))]
        if not has_header:
            logger.info(
                "%s: the first line holds a number, so it is no header; the columns are named by position", path
            )
    table = Table(str(path), names, rows[has_header:], lines[has_header:], has_header=has_header)
    _check_shape(table, ending)
    return table


def is_number(field: str) -> bool:
    """Whether a field is a number as data files write it; "nan", "inf" and "1_000" are not."""
    return _NUMBER.fullmatch(field.strip()) is not None


def _check_shape(table: Table, ending: str) -> None:
    repeated = sorted({name for name in table.names if table.names.count(name) > 1})
    if repeated:
        raise UserError(f"{table.source}, line 1: the header names {listed(repeated)} more than once")
    if not table.rows:
        raise UserError(f"{table.source} has no rows below its header; expected rows of text")
    for row, fields in enumerate(table.rows):
        if len(fields) != len(table.names):
            hint = "; a text with commas needs quotes" if ending == ".csv" and len(fields) > len(table.names) else ""
            raise UserError(
                f"{table.at(row)}: found {len(fields)} column(s), expected {len(table.names)} "
                f"({listed(table.names)}){hint}"
            )


def _tab_rows(path: str, text: str) -> tuple[list[list[str]], list[int]]:
    lines = split_lines(text)
    numbers = [number for number, line in enumerate(lines, 1) if not _is_blank(line)]
    _say_blank(path, len(lines) - len(numbers))
    return [lines[number - 1].split("\t") for number in numbers], numbers


def _csv_rows(path: str, text: str) -> tuple[list[list[str]], list[int]]:
    reader = csv.reader(io.StringIO(text.rstrip(), newline=""), strict=True)
    rows, numbers, begin, blank = [], [], 1, 0
    limit = csv.field_size_limit(sys.maxsize)  # a field may be a whole document
    try:
        for fields in reader:
            if fields:
                rows.append(fields)
                numbers.append(begin)
            else:
                blank += 1
            begin = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {begin}: bad quotes in the row that begins here ({error})") from None
    finally:
        csv.field_size_limit(limit)
    _say_blank(path, blank)
    return rows, numbers


def _is_blank(line: str) -> bool:
    return not line.strip() and "\t" not in line  # a tab separates two empty fields


def _say_blank(path: str, count: int) -> None:
    if count:
        logger.warning("%s: skipped %d blank line(s)", path, count)


def _json_table(path: str, text: str) -> Table:
    if text.lstrip().startswith("["):
        unit, objects = "item", _parsed(text, path)
        numbers = list(range(1, len(objects) + 1))
    else:
        lines = split_lines(text)
        unit, numbers = "line", [number for number, line in enumerate(lines, 1) if not _is_blank(line)]
        _say_blank(path, len(lines) - len(numbers))
        objects = [_parsed(lines[number - 1], f"{path}, line {number}") for number in numbers]
    if not objects:
        raise UserError(f'data file {path} is empty; expected objects such as {{"text": ..., "label": ...}}')
    names: dict[str, None] = {}
    for number, value in zip(numbers, objects, strict=True):
        if not isinstance(value, dict):
            raise UserError(
                f'{path}, {unit} {number}: expected an object such as {{"text": ..., "label": ...}}, one a line or in '
                "one array"
            )
        names.update(dict.fromkeys(value))
    return Table(path, list(names), [[value.get(name) for name in names] for value in objects], numbers, unit)


def _parsed(text: str, at: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise UserError(f"{at}: {constant} is no JSON number")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}" if "\n" in text else f"column {error.colno}"
        raise UserError(f"{at} is not valid JSON: {error.msg} at {place}") from None
    except UserError:
        raise
    except ValueError as error:  # a number of more digits than Python converts
        raise UserError(f"{at}: {fault_of(error)}") from None
    except RecursionError:
        raise UserError(f"{at}: the JSON is nested too deeply") from None
