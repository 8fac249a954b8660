"""One's own files: every format gives the same examples, and labels become classes or values."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.classification_examples import ClassificationExamples
from tasks.text_classification import OwnDataSource
from twinquant.errors import UserError

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, content: str) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode("utf-8"))
        return path

    return write_file


def labels_of(examples: ClassificationExamples) -> list[Any] | None:
    return None if examples.labels is None else examples.labels.tolist()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'text,label\n"a cat, and\na ""mat""",yes\nb dog,no\n'),
        ("bom.csv", '\ufefflabel,content\nyes,"a cat, and\na ""mat"""\nno,b dog\n'),
        ("crlf.csv", 'id,Text,Label\r\n7,"a cat, and\na ""mat""",yes\r\n8,b dog,no\r\n\r\n'),
        ("a.json", json.dumps([{"text": 'a cat, and\na "mat"', "label": "yes"}, {"label": "no", "text": "b dog"}])),
        ("a.jsonl", '{"text": "a cat, and\\na \\"mat\\"", "label": "yes"}\n{"text": "b dog", "label": "no"}\n'),
        ("lines.json", '{"text": "a cat, and\\na \\"mat\\"", "label": "yes"}\n{"text": "b dog", "label": "no"}'),
    ],
)
def test_formats_give_the_same_examples(write: Write, name: str, content: str) -> None:
    source = OwnDataSource(write(name, content))
    assert source.train().texts == ['a cat, and\na "mat"', "b dog"] and source.train().second_texts is None
    assert source.label_names == ["no", "yes"] and labels_of(source.train()) == [1, 0]
    assert source.train().labels.dtype == np.int32 and source.main_metric == "acc"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", 'sentence\tlabel\n"a cat\t1\nb "dog"\t0\n'),
        ("headerless.tsv", '"a cat\t1\nb "dog"\t0\n'),
        ("first.tsv", '1\t"a cat\n0\tb "dog"\n'),
        ("a.txt", '"a cat\t1\nb "dog"\t0\n'),
        ("header.txt", 'text\tlabel\n"a cat\t1\n\nb "dog"\t0\n\n'),
    ],
)
def test_quotes_mean_nothing_between_tabs(write: Write, name: str, content: str) -> None:
    examples = OwnDataSource(write(name, content)).train()
    assert examples.texts == ['"a cat', 'b "dog"'] and labels_of(examples) == [1, 0]


@pytest.mark.parametrize(
    ("header", "settings", "texts"),
    [
        pytest.param("sentence1,sentence2,label", {}, (0, 1), id="pair"),
        pytest.param("label,premise,hypothesis", {}, (1, 2), id="nli"),
        pytest.param("id,title,label", {}, (1, None), id="one-other"),
        pytest.param("title,label,body", {}, (0, 2), id="two-others"),
        pytest.param("title,label,text", {}, (2, None), id="usual-name"),
        pytest.param("sentence1,label,extra", {}, (0, None), id="sentence1"),
        pytest.param("title,label,text", {"text_column": ["title"]}, (0, None), id="chosen"),
        pytest.param("title,label,text", {"text_column": ["text", "title"]}, (2, 0), id="chosen-pair"),
        pytest.param("label,text,answer", {"label_column": "answer"}, (1, None), id="chosen-label"),
        pytest.param("one,two,three", {"label_column": "three"}, (0, 1), id="label-of-any-name"),
    ],
)
def test_columns(write: Write, header: str, settings: dict[str, Any], texts: tuple[int, int | None]) -> None:
    examples = OwnDataSource(write("a.csv", f"{header}\na0,a1,a2\nb0,b1,b2\n"), **settings).train()
    first, second = texts
    assert examples.texts == [f"a{first}", f"b{first}"]
    assert examples.second_texts == (None if second is None else [f"a{second}", f"b{second}"])
    assert labels_of(examples) == [0, 1]


def test_columns_by_position(write: Write) -> None:
    path = write("a.csv", "3,title,body\n1,b,c\n")
    examples = OwnDataSource(path, text_column=["2"], label_column="0").train()
    assert examples.texts == ["body", "c"] and labels_of(examples) == [1, 0]


def test_later_files_take_the_columns_of_the_first(write: Write) -> None:
    train = write("train.csv", "question,label\nq1,a\nq2,b\n")
    dev = write("dev.csv", "text,label,question\nt1,b,q3\nt2,a,q4\n")
    test = write("test.csv", "question\nq5\nq6\n")
    source = OwnDataSource(train, dev, test)
    assert source.evaluation_sets()[""].texts == ["q3", "q4"] and labels_of(source.evaluation_sets()[""]) == [1, 0]
    assert source.test_sets()[""].texts == ["q5", "q6"] and source.test_sets()[""].labels is None


@pytest.mark.parametrize(
    ("labels", "names", "indexes"),
    [
        (["10", "9", "10"], ["9", "10"], [1, 0, 1]),
        (["1", "0", "-1"], ["-1", "0", "1"], [2, 1, 0]),
        (["b", "a", "10"], ["10", "a", "b"], [2, 1, 0]),
        ([True, False, True], ["false", "true"], [1, 0, 1]),
        ([4, 2, 4], ["2", "4"], [1, 0, 1]),
        (
            ["1", "+1", "01", "001", "+01", "0001", "0"],
            ["0", "+01", "+1", "0001", "001", "01", "1"],
            [6, 2, 5, 4, 1, 3, 0],
        ),
    ],
    ids=["whole-numbers-by-value", "signed", "names", "json-booleans", "json-numbers", "several-spellings-of-1"],
)
def test_classes_are_sorted(write: Write, labels: list[Any], names: list[str], indexes: list[int]) -> None:
    lines = [json.dumps({"text": "a", "label": label}) for label in labels]
    source = OwnDataSource(write("a.jsonl", "\n".join(lines)))
    assert source.label_names == names and labels_of(source.train()) == indexes


def test_order_of_a_checkpoint_is_kept(write: Write) -> None:
    train = write("a.csv", "text,label\na,yes\nb,no\n")
    assert OwnDataSource(train, label_names=["yes", "no"]).label_names == ["yes", "no"]
    assert OwnDataSource(train, label_names=["LABEL_0", "LABEL_1"]).label_names == ["no", "yes"]


def test_classes_without_training_file(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    dev = write("dev.csv", "text,label\na,2\nb,0\n")
    named = OwnDataSource(None, dev, label_names=["2", "1", "0"])
    assert labels_of(named.evaluation_sets()[""]) == [0, 2]
    nameless = OwnDataSource(None, dev, label_names=["LABEL_0", "LABEL_1", "LABEL_2"])
    assert labels_of(nameless.evaluation_sets()[""]) == [2, 0] and nameless.label_names == ["0", "1", "2"]
    assert OwnDataSource(None, dev, label_names=["LABEL_0"]).is_regression
    test = write("test.txt", "one\ntwo\n")
    assert OwnDataSource(test_file=test, label_names=["x", "y"]).label_names == ["x", "y"]
    assert OwnDataSource(test_file=test, label_names=["LABEL_0"]).is_regression
    with pytest.raises(UserError, match="the classes are unknown"):
        _ = OwnDataSource(test_file=test).label_names
    assert not caplog.records
    assert OwnDataSource(None, dev).label_names == ["0", "2"]
    assert "the classes are the 2 labels of" in caplog.text


@pytest.mark.parametrize(
    ("labels", "do_regression", "values"),
    [(["2.5", "3", "-1e-1"], False, [2.5, 3.0, -0.1]), (["1.0", "0.0", "1.0"], False, [1, 0, 1]),
     (["3", "1", "2"], True, [3, 1, 2])],
    ids=["fractions", "written-with-a-point", "asked-for"],
)  # fmt: skip
def test_regression(write: Write, labels: list[str], do_regression: bool, values: list[float]) -> None:
    rows = "".join(f"a,{label}\n" for label in labels)
    source = OwnDataSource(write("a.csv", f"text,label\n{rows}"), do_regression=do_regression)
    assert source.is_regression and source.label_names is None and source.main_metric == "corr"
    assert source.train().labels.dtype == np.float32  # type: ignore[union-attr]
    assert source.train().labels.tolist() == pytest.approx(values)  # type: ignore[union-attr]
    assert source.metrics(np.array([1.0, 2.0]), np.array([1.0, 3.0])).keys() == {"mse", "pearson", "spearmanr", "corr"}


def test_class_file(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    classes = write("class.txt", "sports\nfinance\ngames")
    train = write("train.txt", "a\t2\nb\tsports\nc\t0\n")
    source = OwnDataSource(train, class_file=classes)
    assert source.label_names == ["sports", "finance", "games"] and labels_of(source.train()) == [2, 0, 0]
    assert "names classes that" in caplog.text and "'finance'" in caplog.text
    floats = OwnDataSource(write("f.txt", "a\t1.5\nb\t2.5\n"), class_file=write("c.txt", "1.5\n2.5\n"))
    assert labels_of(floats.train()) == [0, 1]
    numbers = OwnDataSource(write("n.txt", "a\t1\nb\t2\n"), class_file=write("d.txt", "1\n2\n"))
    assert labels_of(numbers.train()) == [0, 1]  # names, not lines of the file


@pytest.mark.parametrize("labels", [("", ""), ("-1", "-1"), ("-1.0", "-1.0")], ids=["empty", "-1", "-1.0"])
def test_labels_of_a_test_file_may_be_unknown(write: Write, labels: tuple[str, str]) -> None:
    train = write("train.csv", "text,label\na,yes\nb,no\n")
    test = write("test.csv", "text,label\n" + "".join(f"c,{label}\n" for label in labels))
    assert OwnDataSource(train, test_file=test).test_sets()[""].labels is None
    lines = [json.dumps({"text": "c", "label": label or None}) for label in labels]
    assert OwnDataSource(train, test_file=write("test.jsonl", "\n".join(lines))).test_sets()[""].labels is None
    known = write("known.csv", "text,label\nc,yes\nd,yes\n")
    assert labels_of(OwnDataSource(train, test_file=known).test_sets()[""]) == [1, 1]


def test_metrics(write: Write) -> None:
    two = OwnDataSource(write("two.txt", "a\t0\nb\t1\n"))
    assert two.metrics(np.array([0, 1]), np.array([0, 1])) == {"acc": 1.0, "f1": 1.0}
    three = OwnDataSource(write("three.txt", "a\t0\nb\t1\nc\t2\n"))
    assert three.metrics(np.array([0, 1]), np.array([0, 1])) == {"acc": 1.0, "f1_macro": 1.0}


def test_what_was_read_is_said(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "twinquant"):
        OwnDataSource(write("a.csv", "1,nice\n0,bad\n")).train()
    assert "so it is no header; the columns are named by position" in caplog.text
    assert "2 classes: '0', '1'" in caplog.text and "2 rows, text in '1', label in '0'" in caplog.text


def test_blank_lines_are_said_and_documents_may_be_long(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    document = "word " * 50_000  # more than the csv module takes unless told
    source = OwnDataSource(write("a.csv", f"text,label\n\na,1\n{document},0\n\n"))
    assert source.train().texts == ["a", document] and "a.csv: skipped 1 blank line(s)" in caplog.text


GOOD = "text,label\na,yes\nb,no\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("a.csv", "text,label\na,yes\nb\n", r"a.csv, line 3: found 1 column\(s\), expected 2", id="short"),
        pytest.param("a.csv", "text,label\na, b,yes\n", r"line 2: found 3 .* commas needs quotes", id="long"),
        pytest.param("a.tsv", "text\tlabel\na\tb\tc\n", r"line 2: found 3 column\(s\), expected 2", id="long-tsv"),
        pytest.param("a.txt", "a\tb\tc\n", r"line 1: found 3 column\(s\), expected 2", id="two-tabs"),
        pytest.param("a.txt", "a\t1\nb\n", r"line 2: found 1 column\(s\), expected 2", id="no-tab"),
        pytest.param("a.txt", "a\nb\n", r"the columns are 'text', none of them called label", id="no-labels"),
        pytest.param("a.csv", 'text,label\n"a\nb"c,1\n', r"line 2: bad quotes in the row", id="quotes"),
        pytest.param("a.csv", 'text,label\nb,1\n"a,1\n', r"line 3: bad quotes in the row", id="open-quote"),
        pytest.param("a.csv", "text,label,text\na,1,b\n", r"line 1: the header names 'text' more", id="twice"),
        pytest.param("a.csv", "text,label\n", r"no rows below its header", id="header-only"),
        pytest.param("a.csv", "", r"a.csv is empty", id="empty"),
        pytest.param("a.csv", " \n\n", r"a.csv is empty", id="blank"),
        pytest.param("a.json", "[]", r"a.json is empty", id="empty-array"),
        pytest.param("a.csv", "title,body\na,b\n", r"line 1: .* 'title', 'body', none of them called", id="names"),
        pytest.param("a.csv", "id,label\n1,a\n2,b\n", r"none of them of texts", id="no-text-column"),
        pytest.param("a.csv", "text,label\na,\nb,no\n", r"line 2: the label is missing", id="no-label"),
        pytest.param("a.csv", "text,label\na,no\nb,no\n", r"labels are 'no'; expected at least two", id="one"),
        pytest.param("a.csv", "text,label\na,1.5\nb,nan\n", r"line 3: the label of a regression is 'nan'", id="nan"),
        pytest.param("a.csv", "text,label\na,1.5\nb,-inf\n", r"line 3: the label of a regression is '-inf'", id="inf"),
        pytest.param("a.csv", "text,label\na,1.5\nb,bad\n", r"line 3: the label of a regression is 'bad'", id="word"),
        pytest.param("a.jsonl", '{"text": "a", "label": 1}\n{"text": 1', r"line 2 .* JSON: .* at column 11", id="json"),
        pytest.param("a.jsonl", '{"text": "a", "label": 1}\n\n["b"]', r"line 3: expected an object", id="json-list"),
        pytest.param("a.jsonl", '{"text": "a", "label": 1}\n{"label": 0}', r"line 2: 'text' is missing", id="no-key"),
        pytest.param("a.json", '[{"text": ["a"], "label": 1}]', r"item 1: 'text' is a list", id="json-value"),
        pytest.param("a.jsonl", '{"text": "a", "label": NaN}', r"line 1: NaN is no JSON number", id="json-nan"),
        pytest.param("a.jsonl", '{"text": "\\ud800", "label": 1}\n', r"half of a surrogate pair", id="surrogate"),
        pytest.param("a.xlsx", "text", r"expected a name that ends in .csv, .tsv, .txt, .json or .jsonl", id="ending"),
    ],
)  # fmt: skip
def test_bad_training_files(write: Write, name: str, content: str, message: str) -> None:
    path = write(name, content)
    with pytest.raises(UserError, match=message) as error:
        OwnDataSource(path).train()
    assert str(path) in str(error.value)


def test_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbftext,label\na,1\ncaf\xe9,0\n")
    with pytest.raises(UserError, match=r"a.csv, line 3: byte 0xe9 is not UTF-8 text"):
        OwnDataSource(path).train()


def test_labels_that_the_training_file_lacks(write: Write) -> None:
    dev = write("dev.csv", "text,label\na,yes\nb,maybe\nc,maybe\n")
    source = OwnDataSource(write("train.csv", GOOD), dev)
    message = r"dev.csv, line 3: the label is 'maybe'; expected one of 'no', 'yes', the labels of .*train.csv \(2 rows"
    with pytest.raises(UserError, match=message):
        source.evaluation_sets()


def test_columns_that_a_later_file_lacks(write: Write) -> None:
    dev = write("dev.csv", "content,label\na,yes\n")
    with pytest.raises(UserError, match=r"dev.csv, line 1: the columns are 'content', 'label', none of them 'text'"):
        OwnDataSource(write("train.csv", GOOD), dev).evaluation_sets()
    dev = write("dev.txt", "a\tyes\n")
    with pytest.raises(UserError, match=r"dev.txt: found the text column\(s\) 'text', but .* expected as many"):
        OwnDataSource(write("pair.csv", "a,b,label\na,b,yes\na,b,no\n"), dev).evaluation_sets()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        pytest.param(
            "zero\none\n", r"line 3: the label is 2, but .*class.txt names 2 classes \(0 to 1\)", id="too-few"
        ),
        pytest.param("a\nb\na\n", r"class.txt, line 3: the class 'a' is named before, on line 1", id="duplicate"),
        pytest.param("a\n\nb\n", r"class.txt, line 2: blank", id="blank-line"),
        pytest.param("a\n", r"class.txt names one class", id="one"),
        pytest.param("", r"class.txt is empty", id="empty"),
        pytest.param("5\n6\n", r"line 1: the label is '0'; expected one of '5', '6'", id="classes-that-are-numbers"),
    ],
)
def test_bad_class_files(write: Write, classes: str, message: str) -> None:
    source = OwnDataSource(write("train.txt", "a\t0\nb\t1\nc\t2\n"), class_file=write("class.txt", classes))
    with pytest.raises(UserError, match=message):
        source.train()


def test_unknown_class_name(write: Write) -> None:
    classes = write("class.txt", "sports\nfinance\n")
    with pytest.raises(UserError, match=r"line 1: the label is 'sport'; expected one of 'sports', 'finance'"):
        OwnDataSource(write("train.txt", "a\tsport\nb\tfinance\n"), class_file=classes).train()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text_column": ["a", "b", "c"]}, "--text_column names 3 columns"),
        ({"text_column": ["a", "a"]}, "name a column twice"),
        ({"text_column": ["a"], "label_column": "a"}, "name a column twice"),
        ({"do_regression": True, "class_file": "class.txt"}, "exclude each other"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        OwnDataSource("train.csv", **settings)


def test_missing_files_are_named(write: Write) -> None:
    source = OwnDataSource(train_file="nowhere.csv")
    with pytest.raises(UserError, match=r"data file nowhere.csv does not exist"):
        source.train()
    source = OwnDataSource(write("train.csv", GOOD))
    with pytest.raises(UserError, match="--validation_file is missing; expected a csv, tsv, txt or json file"):
        source.evaluation_sets()
    with pytest.raises(UserError, match="--test_file is missing"):
        source.test_sets()
    with pytest.raises(UserError, match=r"line 1: the columns are 'text', 'label', none of them 'body'; name"):
        OwnDataSource(write("train.csv", GOOD), text_column=["body"]).train()


@pytest.mark.real
def test_real_titles(shared_data: Path) -> None:
    """THUCNews: every title as it is in the file, also the 264 damaged ones, and the number behind it."""
    folder = shared_data / "thucnews"
    files = [folder / f"{name}.txt" for name in ("train", "dev", "test")]
    source = OwnDataSource(*files, class_file=folder / "class.txt")
    sets = [source.train(), source.evaluation_sets()[""], source.test_sets()[""]]
    assert [len(examples) for examples in sets] == [45000, 10000, 10000]
    assert source.label_names == (folder / "class.txt").read_text().split()
    for path, examples in zip(files, sets, strict=True):
        written = [f"{text}\t{label}\n" for text, label in zip(examples.texts, labels_of(examples) or [], strict=True)]
        assert "".join(written) == path.read_text(encoding="utf-8")
    assert sum("\ufffd" in text for examples in sets for text in examples.texts) == 264
