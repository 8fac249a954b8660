"""Which columns of a data file hold the texts and the labels, where the user does not say."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.classification_files import Table, is_number, listed
from twinquant.errors import UserError

LABEL_COLUMNS = (
    "label", "labels", "class", "target", "category", "gold_label", "sentiment", "rating", "stars", "score",
)  # fmt: skip
TEXT_PAIRS = (
    ("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2"), ("question", "sentence"),
    ("text_a", "text_b"), ("text1", "text2"),
)  # fmt: skip
TEXT_COLUMNS = ("sentence1", "text", "sentence", "content", "review")
NUMBERING_COLUMNS = ("", "id", "idx", "index", "guid", "unnamed: 0")  # never texts, unless the user says so
USUAL_NAMES = frozenset((*LABEL_COLUMNS, *TEXT_COLUMNS, *(name for pair in TEXT_PAIRS for name in pair)))


def choose_columns(
    table: Table, text_columns: Sequence[str] = (), label_column: str | None = None, needs_label: bool = True
) -> tuple[tuple[str, ...], str | None]:
    """The one or two text columns, and the label column or None where there is none and none is needed.

    Columns that are given are taken. Else the label column is the first of `LABEL_COLUMNS` that the table has, or, in a
    file without header, the only one whose first field is a number. The text columns are the first of `TEXT_PAIRS`, the
    first of `TEXT_COLUMNS`, or the first one or two others, leaving out `NUMBERING_COLUMNS`. Case does not matter.

    Raises UserError, listing the columns there are, where a given column is missing or none can be chosen.
    """
    wanted = [*text_columns, *([label_column] if label_column is not None and needs_label else [])]
    for name in wanted:
        if name not in table.names:
            raise _no_column(table, f"none of them {name!r}; name the right ones with --text_column, --label_column")
    if label_column is None:
        label = _usual_label(table, text_columns)
    else:
        label = label_column if label_column in table.names else None
    if label is None and needs_label:
        usual = ", ".join(LABEL_COLUMNS[:4])
        raise _no_column(table, f"none of them called {usual} or alike; name the one of labels with --label_column")
    texts = tuple(text_columns) or _usual_texts([name for name in table.names if name != label])
    if not texts:
        raise _no_column(table, "none of them of texts; name the one of texts with --text_column")
    return texts, label


def _usual_label(table: Table, text_columns: Sequence[str]) -> str | None:
    by_name = {name.lower(): name for name in reversed(table.names) if name not in text_columns}
    for name in LABEL_COLUMNS:
        if name in by_name:
            return by_name[name]
    numeric = [name for name, field in zip(table.names, table.rows[0], strict=True) if is_number(str(field))]
    return numeric[0] if not table.has_header and len(numeric) == 1 else None


def _usual_texts(names: Sequence[str]) -> tuple[str, ...]:
    by_name = {name.lower(): name for name in reversed(names)}
    for first, second in TEXT_PAIRS:
        if first in by_name and second in by_name:
            return by_name[first], by_name[second]
    for usual in TEXT_COLUMNS:
        if usual in by_name:
            return (by_name[usual],)
    return tuple(name for name in names if name.strip().lower() not in NUMBERING_COLUMNS)[:2]


def _no_column(table: Table, problem: str) -> UserError:
    line = ", line 1" if table.has_header and table.unit == "line" else ""
    return UserError(f"{table.source}{line}: the columns are {listed(table.names)}, {problem}")
