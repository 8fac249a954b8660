"""Valid small files of tasks, and how they are read: SQuAD, GLUE, own texts, vocabularies, caches."""

import json
from pathlib import Path

import numpy as np
from damage import JSON, TEXT
from reader import CONTEXT, Reader, write_words

from tasks.classification import ClassificationTask
from tasks.feature_cache import cached_features
from tasks.glue import GlueSource
from tasks.squad import SquadTask
from tasks.text_classification import OwnDataSource
from tasks.tokenization import load_tokenizer


def make_squad(folder: Path) -> None:
    write_words(folder)
    questions = [
        {"id": f"q{n}", "question": "Who sat ?", "is_impossible": n == 1,
         "answers": [] if n == 1 else [{"text": "the mat", "answer_start": 15}]}
        for n in range(3)
    ]  # fmt: skip
    paragraphs = [{"context": CONTEXT, "qas": questions[:2]}, {"context": CONTEXT, "qas": questions[2:]}]
    content = {"version": "2.0", "data": [{"title": "Cats", "paragraphs": paragraphs}]}
    (folder / "squad.json").write_text(json.dumps(content), encoding="utf-8")


def read_squad(folder: Path) -> None:
    lengths = {"max_seq_length": 24, "max_query_length": 8, "doc_stride": 8, "version_2_with_negative": True}
    path = folder / "squad.json"
    task = SquadTask(vocab_file=folder / "vocab.txt", train_file=path, predict_file=path, **lengths)
    task.train_features()
    for prediction_set in task.prediction_sets():
        features = prediction_set.features()
        logits = np.zeros((len(features), 24), np.float32)
        (folder / "answers").mkdir(exist_ok=True)
        prediction_set.finish({"start_logits": logits, "end_logits": logits}, folder / "answers")


def own_data(name: str, text: str) -> Reader:
    def make(folder: Path) -> None:
        write_words(folder)
        for each in (name, f"other{Path(name).suffix}"):
            (folder / each).write_text(text, encoding="utf-8")
        (folder / "classes.txt").write_text("bad\ngood\n")

    def read(folder: Path) -> None:
        for train, dev in ((name, f"other{Path(name).suffix}"), (f"other{Path(name).suffix}", name)):
            classify(OwnDataSource(folder / train, folder / dev), folder)
        if name.endswith(".csv"):
            classify(OwnDataSource(folder / name, folder / name, class_file=folder / "classes.txt"), folder)

    return Reader(make, name, read, JSON if Path(name).suffix.startswith(".json") else TEXT)


def classify(source, folder: Path) -> None:
    task = ClassificationTask(source=source, vocab_file=folder / "vocab.txt", max_seq_length=24)
    task.train_features()
    for prediction_set in task.prediction_sets():
        rows = len(prediction_set.features())
        (folder / "results").mkdir(exist_ok=True)
        prediction_set.finish({"logits": np.zeros((rows, task.num_labels), np.float32)}, folder / "results")


def read_classes(folder: Path) -> None:
    classify(OwnDataSource(folder / "train.csv", folder / "other.csv", class_file=folder / "classes.txt"), folder)


def glue(task: str, folder_name: str, header: str, rows: list[str]) -> Reader:
    def make(folder: Path) -> None:
        write_words(folder)
        (folder / folder_name).mkdir()
        names = ["train", "dev_matched", "dev_mismatched"] if task == "mnli" else ["train", "dev"]
        for name in names:
            text = "".join(f"{line}\n" for line in ([header] if header else []) + rows)
            (folder / folder_name / f"{name}.tsv").write_text(text, encoding="utf-8")

    return Reader(make, f"{folder_name}/train.tsv", lambda folder: classify(GlueSource(task, folder), folder), TEXT)


def read_vocabulary(folder: Path) -> None:
    tokenizer = load_tokenizer(folder / "vocab.txt")
    tokenizer.encode_texts([CONTEXT, "", "[CLS] \x00"])


def _features(folder: Path):
    make_squad(folder)
    path = folder / "squad.json"
    task = SquadTask(
        vocab_file=folder / "vocab.txt", train_file=path, max_seq_length=24, max_query_length=8, doc_stride=8,
        version_2_with_negative=True,
    )  # fmt: skip
    return task.train_features()


def make_cache(folder: Path) -> None:
    cached_features(folder, "0" * 64, lambda: _features(folder))


def read_cache(folder: Path) -> None:
    """A damaged cache is made anew, so what comes back is right in any case."""
    expected = _features(folder)
    found = cached_features(folder, "0" * 64, lambda: expected)
    for name, array in expected.batch(np.arange(len(expected)), 24).items():
        np.testing.assert_array_equal(found.batch(np.arange(len(found)), 24)[name], array)
