"""JSON of a user's: every fault is one sentence that names the file."""

import json

import pytest

from twinquant.errors import UserError
from twinquant.json_text import DEEPEST, parse_json


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param(b"", "f.json is not a JSON file: Expecting value", id="empty"),
        pytest.param(b'{"a": 1', "f.json is not a JSON file: Expecting ',' delimiter", id="cut"),
        pytest.param(b"\xff\xfe{", "f.json is not a JSON file: 'utf-16-le' codec can't decode", id="not-utf-8"),
        pytest.param("9" * 5000, "f.json is not a JSON file: a number in it has thousands of digits", id="many-digits"),
        pytest.param(nested(100_000), f"nested more than {DEEPEST} levels deep", id="beyond-python's-limit"),
        pytest.param(nested(DEEPEST + 1), f"f.json is nested more than {DEEPEST} levels deep", id="too-deep"),
        pytest.param('{"a": ["\\ud800"]}', "f.json holds half of a surrogate pair .'.ud800'., which", id="value"),
        pytest.param('{"\\udfff": 1}', "f.json holds half of a surrogate pair .'.udfff'., which", id="key"),
    ],
)
def test_what_is_refused(content: str | bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        parse_json(content, "f.json")


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, "ü😀"]}, [], "x", json.loads(nested(DEEPEST))])
def test_what_is_read(value: object) -> None:
    assert parse_json(json.dumps(value), "f.json") == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode(), "f.json") == value
