"""GLUE's folders give the rows that Hugging Face's old processors read from them."""

import csv
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tasks.glue import GLUE_TASKS, GlueSource, glue_task_name
from twinquant.errors import UserError

# Columns by task: those of train and dev, those of test.
COLUMNS = {
    "cola": ("source label star sentence", "index sentence"),
    "sst-2": ("sentence label", "index sentence"),
    "mrpc": ("Quality id1 id2 sentence1 sentence2", "index id1 id2 sentence1 sentence2"),
    "sts-b": ("index genre file year old s1 s2 sentence1 sentence2 label",) * 2,
    "qqp": ("id qid1 qid2 sentence1 sentence2 label", "id sentence1 sentence2"),
    "mnli": ("index p pair genre b1 b2 p1 p2 sentence1 sentence2 label1 label",) * 2,
    "qnli": ("index sentence1 sentence2 label", "index sentence1 sentence2"),
    "rte": ("index sentence1 sentence2 label", "index sentence1 sentence2"),
    "wnli": ("index sentence1 sentence2 label", "index sentence1 sentence2"),
}
FILES = {"mnli": ("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched")}
LABELS = {name: task.labels or ("0.000", "4.25") for name, task in GLUE_TASKS.items()}

WriteTask = Callable[..., Path]


@pytest.fixture
def write_task(tmp_path: Path) -> WriteTask:
    """Writes all files of a task, three rows each, into glue/<folder>; returns that folder."""

    def write(name: str) -> Path:
        folder = tmp_path / "glue" / GLUE_TASKS[name].folder
        folder.mkdir(parents=True)
        for file in FILES.get(name, ("train", "dev", "test")):
            columns = COLUMNS[name][file.startswith("test")].split()
            rows = [[field(name, file, column, row) for column in columns] for row in range(3)]
            if name != "cola" or file == "test":
                rows.insert(0, columns)
            text = "".join("\t".join(row) + "\n" for row in rows)
            (folder / f"{file}.tsv").write_text(text, encoding="utf-8-sig")
        return folder

    return write


def field(name: str, file: str, column: str, row: int) -> str:
    if column in ("label", "Quality"):
        return LABELS[name][row % len(LABELS[name])]
    if column in ("index", "id"):
        return str(10 + row)
    return f'{file} "{column} {row}' if column.startswith("sentence") else f"{column}{row}"


def expected_texts(file: str, column: str) -> list[str]:
    return [f'{file} "{column} {row}' for row in range(3)]


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("parent", [False, True], ids=["task-folder", "parent-folder"])
def test_every_task(write_task: WriteTask, name: str, parent: bool) -> None:
    folder = write_task(name)
    source = GlueSource(name.upper(), folder.parent if parent else folder)
    is_pair = "sentence1" in COLUMNS[name][0]
    column = "sentence1" if is_pair else "sentence"
    kinds = {"train": {"": source.train()}, "dev": source.evaluation_sets(), "test": source.test_sets()}
    assert list(kinds["dev"]) == list(kinds["test"]) == (["", "mm"] if name == "mnli" else [""])
    for kind, sets in kinds.items():
        for suffix, examples in sets.items():
            file = kind if name != "mnli" or kind == "train" else f"{kind}_{'mismatched' if suffix else 'matched'}"
            assert examples.texts == expected_texts(file, column)
            assert examples.second_texts == (expected_texts(file, "sentence2") if is_pair else None)
            if kind == "test":
                assert examples.labels is None and examples.ids == ["10", "11", "12"]
                continue
            assert examples.labels is not None
            if name == "sts-b":
                assert source.label_names is None and examples.labels.dtype == np.float32
                assert examples.labels.tolist() == [0.0, 4.25, 0.0]
            else:
                names = source.label_names
                assert names == list(LABELS[name]) and examples.labels.dtype == np.int32
                assert [names[index] for index in examples.labels] == [names[row % len(names)] for row in range(3)]


def test_mismatched_alone(write_task: WriteTask) -> None:
    source = GlueSource("mnli-mm", write_task("mnli"))
    assert source.train().texts == expected_texts("train", "sentence1")
    assert list(source.evaluation_sets()) == ["mm"]
    assert source.evaluation_sets()["mm"].texts == expected_texts("dev_mismatched", "sentence1")


@pytest.mark.parametrize(
    ("given", "name"),
    [("MRPC", "mrpc"), ("sst2", "sst-2"), ("SST-2", "sst-2"), ("stsb", "sts-b"), ("STS-B", "sts-b"), ("CoLA", "cola"),
     ("mnli", "mnli"), ("MNLI-mm", "mnli-mm"), ("mnli_mismatched", "mnli-mm"), ("mnli_matched", "mnli")],
)  # fmt: skip
def test_spellings_of_names(given: str, name: str) -> None:
    assert glue_task_name(given) == name


def test_unknown_name() -> None:
    with pytest.raises(UserError, match="--task_name is 'snli'; expected one of cola, sst-2"):
        GlueSource("snli", ".")


def test_submission_files() -> None:
    official = "CoLA.tsv SST-2.tsv MRPC.tsv STS-B.tsv QQP.tsv MNLI-m.tsv QNLI.tsv RTE.tsv WNLI.tsv".split()
    names = [name for name in GLUE_TASKS if name != "mnli-mm"]
    assert [GlueSource(name, ".").submission_file("") for name in names] == official
    assert GlueSource("mnli", ".").submission_file("mm") == "MNLI-mm.tsv"


@pytest.mark.parametrize(
    ("name", "main", "keys"),
    [
        ("cola", "mcc", {"mcc"}),
        ("sst-2", "acc", {"acc"}),
        ("mrpc", "acc_and_f1", {"acc", "f1", "acc_and_f1"}),
        ("qqp", "acc_and_f1", {"acc", "f1", "acc_and_f1"}),
        ("sts-b", "corr", {"pearson", "spearmanr", "corr"}),
        ("mnli", "acc", {"acc"}),
        ("mnli-mm", "acc", {"acc"}),
        ("qnli", "acc", {"acc"}),
        ("rte", "acc", {"acc"}),
        ("wnli", "acc", {"acc"}),
    ],
)
def test_metrics(name: str, main: str, keys: set[str]) -> None:
    source = GlueSource(name, ".")
    assert source.main_metric == main
    scores = source.metrics(np.array([0, 1, 1]), np.array([0, 1, 0]))
    assert scores.keys() == keys and all(type(value) is float for value in scores.values())


def test_order_of_a_checkpoint(write_task: WriteTask) -> None:
    folder = write_task("rte")
    turned = GlueSource("rte", folder, ["not_entailment", "entailment"])
    assert turned.label_names == ["not_entailment", "entailment"]
    assert turned.train().labels.tolist() == [1, 0, 1]  # type: ignore[union-attr]
    assert GlueSource("rte", folder, ["LABEL_0", "LABEL_1"]).label_names == ["entailment", "not_entailment"]


@pytest.mark.parametrize("names", [None, ["1", "0"]], ids=["usual-order", "turned"])
def test_f1_is_of_the_class_1_in_any_order(names: list[str] | None) -> None:
    """Right: 1 1 1 0 0, predicted: 1 1 0 0 1; by class F1 is 2/3 and 1/2."""
    source = GlueSource("mrpc", ".", names)
    position = {name: index for index, name in enumerate(source.label_names or ())}
    labels, predictions = (np.array([position[name] for name in text]) for text in ("11100", "11001"))
    scores = source.metrics(labels, predictions)
    assert scores["acc"] == pytest.approx(0.6) and scores["f1"] == pytest.approx(2 / 3)


def test_short_rows_of_qqp_are_skipped(write_task: WriteTask, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_task("qqp")
    for file in ("train", "test"):
        path = folder / f"{file}.tsv"
        lines = path.read_text(encoding="utf-8").split("\n")
        path.write_text("\n".join([*lines[:2], "cut\tshort", "", *lines[2:]]), encoding="utf-8")
    source = GlueSource("qqp", folder)
    with caplog.at_level(logging.WARNING, "twinquant"):
        assert source.train().texts == expected_texts("train", "sentence1")
        assert source.test_sets()[""].ids == ["10", "11", "12"]
    assert len(caplog.records) == 2
    assert f"{folder}/train.tsv: skipped 2 short row(s)" in caplog.text and "line 3: found 2 column(s)" in caplog.text


def test_rows_that_are_too_long_are_said(write_task: WriteTask, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_task("cola")
    with (folder / "train.tsv").open("a", encoding="utf-8") as file:
        file.write("s\t1\t\tone\ttwo\n")
    with caplog.at_level(logging.WARNING, "twinquant"):
        assert GlueSource("cola", folder).train().texts[-1] == "one"
    assert "1 row(s) have more than 4 columns, the first on line 4" in caplog.text


def test_characters_that_only_look_like_line_ends(write_task: WriteTask) -> None:
    folder = write_task("sst-2")
    text = "one\x85two\u2028three\x0cfour\x1cfive"
    (folder / "train.tsv").write_bytes(f"sentence\tlabel\r\n{text}\t1\r\n\r\n".encode())
    assert GlueSource("sst-2", folder).train().texts == [text]


RAW_ROWS = [("1", "11", "21", "a", "b"), ("0", "12", "22", 'c "', "d"), ("1", "13", "23", "e", "f")]


def write_raw_mrpc(folder: Path) -> None:
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    text = "\n".join([header, *map("\t".join, RAW_ROWS), ""])
    for name in ("train", "test"):
        (folder / f"msr_paraphrase_{name}.txt").write_text(text, encoding="utf-8-sig")
    (folder / "dev_ids.tsv").write_text("12\t22\n99\t99\n", encoding="utf-8")


def test_raw_mrpc(tmp_path: Path) -> None:
    write_raw_mrpc(tmp_path)
    source = GlueSource("mrpc", tmp_path)
    train, dev, test = source.train(), source.evaluation_sets()[""], source.test_sets()[""]
    assert (train.texts, train.second_texts, train.labels.tolist()) == (["a", "e"], ["b", "f"], [1, 1])  # type: ignore[union-attr]
    assert (dev.texts, dev.second_texts, dev.labels.tolist()) == (['c "'], ["d"], [0])  # type: ignore[union-attr]
    assert test.texts == ["a", 'c "', "e"] and test.ids == ["0", "1", "2"] and test.labels is None


def test_raw_mrpc_without_ids_of_dev(tmp_path: Path) -> None:
    write_raw_mrpc(tmp_path)
    (tmp_path / "dev_ids.tsv").unlink()
    with pytest.raises(UserError, match=r"has msr_paraphrase_train.txt but no dev_ids.tsv"):
        GlueSource("mrpc", tmp_path).train()


def replace(path: Path, old: bytes, new: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        pytest.param(
            "mrpc", b"id11\tid21\t", b"id11\t", r"train.tsv, line 3: found 4 column\(s\), expected 5", id="short"
        ),
        pytest.param("rte", b"index\t", b"", r"train.tsv, line 1: the header has 3 column\(s\)", id="short-header"),
        pytest.param(
            "cola", b"0\tstar0", b"2\tstar0", r"line 1: the label is '2'; expected one of '0', '1'", id="label"
        ),
        pytest.param("mnli", b"neutral", b"-", r"line 4: the label is '-'; expected one of 'contradiction'", id="nli"),
        pytest.param("sst-2", b"\t1\n", b"\t\n", r"line 3: the label is missing; expected one of", id="no-label"),
        pytest.param("sts-b", b"4.25", b"good", r"line 3: the label of a regression is 'good'", id="no-number"),
        pytest.param("sts-b", b"4.25", b"nan", r"line 3: the label of a regression is 'nan'", id="nan"),
        pytest.param("sts-b", b"4.25", b"1e99", r"line 3: the label of a regression is '1e99'", id="too-large"),
        pytest.param("qnli", b"train", b"tr\xe9in", r"line 2: byte 0xe9 is not UTF-8 text", id="not-utf-8"),
    ],
)
def test_bad_files(write_task: WriteTask, name: str, old: bytes, new: bytes, message: str) -> None:
    folder = write_task(name)
    replace(folder / "train.tsv", old, new)
    with pytest.raises(UserError, match=message) as error:
        GlueSource(name, folder).train()
    assert str(folder / "train.tsv") in str(error.value)


@pytest.mark.parametrize(("content", "message"), [("", "is empty"), ("sentence\tlabel\n", "no rows below its header")])
def test_files_without_rows(write_task: WriteTask, content: str, message: str) -> None:
    folder = write_task("sst-2")
    (folder / "dev.tsv").write_text(content)
    with pytest.raises(UserError, match=message):
        GlueSource("sst-2", folder).evaluation_sets()


def test_missing_files(write_task: WriteTask, tmp_path: Path) -> None:
    folder = write_task("sst-2")
    (folder / "dev.tsv").unlink()
    with pytest.raises(UserError, match=r"SST-2 has no dev.tsv; expected the SST-2 files of GLUE"):
        GlueSource("sst-2", folder).evaluation_sets()
    with pytest.raises(UserError, match=r"has no train.tsv; expected .* or msr_paraphrase_train.txt and dev_ids.tsv"):
        GlueSource("mrpc", tmp_path).train()
    with pytest.raises(UserError, match=r"--data_dir .*nowhere is not a folder"):
        GlueSource("mrpc", tmp_path / "nowhere").train()


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "counts"),
    [("cola", (8551, 1043, 1063)), ("sst-2", (67349, 872, 1821)), ("mrpc", (3668, 408, 1725))],
)
def test_real_files(shared_data: Path, name: str, counts: tuple[int, int, int]) -> None:
    """As many rows as the benchmark has, and those that Python's csv module reads without quotes."""
    source, task = GlueSource(name, shared_data / "glue"), GLUE_TASKS[name]
    train, dev, test = source.train(), source.evaluation_sets()[""], source.test_sets()[""]
    assert (len(train), len(dev), len(test)) == counts
    for examples, columns in ((train, task.text_columns), (dev, task.text_columns), (test, task.test_columns)):
        with open(examples.source, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t", quotechar=None))
        rows = rows[task.has_header or examples is test :]
        assert examples.texts == [row[columns[0]] for row in rows]
        if examples.second_texts is not None:
            assert examples.second_texts == [row[columns[1]] for row in rows]
        if examples.labels is not None:
            assert examples.labels.tolist() == [int(row[task.label_column]) for row in rows]


@pytest.mark.real
def test_real_raw_mrpc_gives_the_same_rows(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "glue/MRPC"
    for name in ("msr_paraphrase_train.txt", "msr_paraphrase_test.txt", "dev_ids.tsv"):
        (tmp_path / name).symlink_to(folder / name)
    raw, tsv = GlueSource("mrpc", tmp_path), GlueSource("mrpc", folder)
    assert raw.train().checksum() == tsv.train().checksum()
    assert sorted(raw.evaluation_sets()[""].texts) == sorted(tsv.evaluation_sets()[""].texts)
    assert raw.test_sets()[""].texts == tsv.test_sets()[""].texts
    assert raw.test_sets()[""].ids == tsv.test_sets()[""].ids
