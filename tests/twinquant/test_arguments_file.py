"""A .json file in the place of the flags: what its values become, and one sentence for every mistake."""

import json

import pytest

from twinquant.arguments_file import split_arguments_file
from twinquant.errors import UserError
from twinquant.flags import Flag, parse_flags

TABLE = (
    Flag("do_train", bool, False, "fine-tuning", "Train."),
    Flag("do_lower_case", bool, True, "data", "Lower-case."),
    Flag("learning_rate", float, 1.0, "fine-tuning", "Rate."),
    Flag("num_train_epochs", int, 3, "fine-tuning", "Epochs."),
    Flag("text", str, None, "data", "Text."),
    Flag("columns", list, (), "data", "Columns."),
)


@pytest.fixture
def expand(tmp_path):
    def expand(content: str | bytes) -> list[str]:
        path = tmp_path / "arguments.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        (_, words), flags = split_arguments_file([str(path)])
        assert flags == []
        return words

    return expand


def test_values_arrive_at_the_flags(expand):
    content = {
        "do_train": True,
        "do_lower_case": False,
        "learning_rate": 2e-05,
        "num_train_epochs": 5.0,
        "text": "-a b=c\nd",
        "columns": ["a", 2],
    }
    parsed = parse_flags(TABLE, expand(json.dumps(content)), "program.py", "")
    assert parsed.values == {**content, "num_train_epochs": 5, "columns": ("a", "2")}
    assert parsed.notes == []


@pytest.mark.parametrize(
    "content, words",
    [
        ("{}", []),
        ('{"text": null, "columns": [], "do_train": {}}', []),
        ('{"text": {"a": [1, {"b": null}]}}', ['--text={"a": [1, {"b": null}]}']),
        ('{"report_to": []}', ["--report_to", "none"]),
        ('{"--do-train": true, "-text": "x"}', ["--do-train=true", "--text=x"]),
        ('{"text": "ä"}', ["--text=ä"]),
        ('{"max_steps": -1}', ["--max_steps=-1"]),
        ('\ufeff{"do_train": false}', ["--do_train=false"]),
    ],
    ids=[
        "nothing",
        "null and what is empty",
        "an object",
        "the Trainer's none",
        "dashes",
        "not ASCII",
        "a negative number",
        "a byte-order mark",
    ],
)
def test_words(expand, content, words):
    assert expand(content) == words


def test_a_repeated_key_is_told_to_the_user(expand):
    parsed = parse_flags(TABLE, expand('{"text": "a", "text": "b"}'), "program.py", "")
    assert parsed.values["text"] == "b"
    assert parsed.notes == ["warning: --text was given 2 times with different values (a, b); the last, b, is used."]


@pytest.mark.parametrize("argv", [[], ["--do_train"], ["--text", "a.json"], ["--text=a.json"]], ids=" ".join)
def test_other_command_lines_are_left_alone(argv):
    assert split_arguments_file(argv) == (("", []), argv)


def test_flags_behind_the_file_replace_what_it_says_with_a_note(tmp_path):
    path = tmp_path / "arguments.json"
    path.write_text('{"do_train": true, "num_train_epochs": 5, "text": "a", "columns": ["a", "b"]}')
    file, flags = split_arguments_file([str(path), "--num_train_epochs", "1", "--text=a", "--nodo_train"])
    parsed = parse_flags(TABLE, flags, "program.py", "", file)
    assert [parsed.values[name] for name in ("do_train", "num_train_epochs", "text")] == [False, 1, "a"]
    assert parsed.values["columns"] == ("a", "b")
    assert parsed.notes == [
        f"note: the command line replaces what {path} says: --num_train_epochs=1 instead of 5, --nodo_train=False "
        "instead of True."
    ]


@pytest.mark.parametrize(
    "content, sentence",
    [
        ("[1]", " must hold a JSON object of arguments, found a list."),
        ('"x"', " must hold a JSON object of arguments, found a str."),
        ("{", " is not a JSON file of arguments: "),
        ("", " is not a JSON file of arguments: "),
        (b'{"a": "\xff"}', " is not a JSON file of arguments: "),
        ('{"a": NaN}', " is not a JSON file of arguments: NaN is no number of JSON."),
        ('{"a=b": 1}', ": the key 'a=b' is not the name of a flag, such as do_train."),
        ('{"a": [{"b": 1}]}', ": the value of 'a' is or holds an object; expected true, false, a number or a text."),
        ('{"a": [null]}', ": the value of 'a' is or holds null; expected true, false, a number or a text."),
        ('{"a": [[1]]}', ": the value of 'a' is or holds a list; expected true, false, a number or a text."),
        ('{"a": ["--do_train"]}', ": the list of 'a' holds a word with a dash in front, which is a flag."),
    ],
    ids=["list", "text", "cut off", "empty", "not UTF-8", "NaN", "a key", "an object", "null", "nested", "a flag"],
)
def test_a_mistake_is_one_sentence(expand, tmp_path, content, sentence):
    with pytest.raises(UserError) as error:
        expand(content)
    assert str(error.value).startswith(f"{tmp_path}/arguments.json{sentence}")


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(UserError, match=r"none.json does not exist; a file of arguments is expected"):
        split_arguments_file([str(tmp_path / "none.json")])
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(UserError, match=r"folder.json cannot be read: Is a directory"):
        split_arguments_file([str(tmp_path / "folder.json")])
