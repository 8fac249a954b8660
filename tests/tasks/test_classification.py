"""The whole task: from files to features and from logits to scored files."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.base import PredictionSet, Task
from tasks.classification import ClassificationTask
from tasks.classification_source import ClassificationSource
from tasks.glue import GlueSource
from tasks.text_classification import OwnDataSource
from twinquant.errors import UserError

MakeTask = Callable[..., ClassificationTask]


@pytest.fixture
def make_task(vocab_file: Path) -> MakeTask:
    def make(source: ClassificationSource, **settings: Any) -> ClassificationTask:
        return ClassificationTask(**{"source": source, "vocab_file": vocab_file} | settings)

    return make


@pytest.fixture
def mrpc(tmp_path: Path) -> Path:
    """A folder of MRPC with 4 training rows, 3 of dev and 2 of test."""
    folder = tmp_path / "MRPC"
    folder.mkdir()
    header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    for name, labels in (("train", "1011"), ("dev", "101")):
        rows = "".join(f"{label}\t1\t2\tthe cat {row}\ta dog\n" for row, label in enumerate(labels))
        (folder / f"{name}.tsv").write_text(header + rows, encoding="utf-8-sig")
    rows = "7\t1\t2\tthe cat\ta dog\n9\t1\t2\ta\tthe\n"
    (folder / "test.tsv").write_text(header.replace("Quality", "index") + rows)
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., OwnDataSource]:
    """One's own data: labels of each file, by its name."""

    def write(**labels: str) -> OwnDataSource:
        files = {}
        for name, values in labels.items():
            path = tmp_path / f"{name}.csv"
            rows = "".join(f"the cat {row},{label}\n" for row, label in enumerate(values.split()))
            path.write_text(f"text,label\n{rows}")
            files[f"{name}_file"] = path
        return OwnDataSource(**files)

    return write


def logits_for(classes: list[int], count: int) -> dict[str, list[np.ndarray]]:
    """One row per example, as `predict_all` gives them."""
    return {"logits": list(np.eye(count, dtype=np.float32)[classes])}


def by_name(task: ClassificationTask) -> dict[str, PredictionSet]:
    return {prediction_set.name: prediction_set for prediction_set in task.prediction_sets()}


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_glue_task(make_task: MakeTask, mrpc: Path, tmp_path: Path) -> None:
    task, out = make_task(GlueSource("mrpc", mrpc), do_predict=True), tmp_path / "new" / "out"
    assert isinstance(task, Task) and (task.name, task.head, task.num_labels) == ("mrpc", "classification", 2)
    assert task.label_names == ["0", "1"] and task.train_examples_count == 4
    assert task.train_features().batch(range(4))["labels"].tolist() == [1, 0, 1, 1]
    sets = by_name(task)
    assert {name: (len(s.features()), s.has_labels) for name, s in sets.items()} == {
        "dev": (3, True),
        "test": (2, False),
    }
    scores = sets["dev"].finish(logits_for([1, 1, 1], 2), out)
    assert scores == pytest.approx({"acc": 2 / 3, "f1": 0.8, "acc_and_f1": (2 / 3 + 0.8) / 2})
    assert task.main_score(scores) == scores["acc_and_f1"]
    assert sets["test"].finish(logits_for([0, 1], 2), out) == {}
    assert read_json(out / "predictions_dev.json") == {"labels": [1, 0, 1], "predictions": [1, 1, 1]}
    assert read_json(out / "predictions_test.json") == {"labels": None, "predictions": [0, 1]}
    assert (out / "predict_results_mrpc.txt").read_text() == "index\tprediction\n0\t0\n1\t1\n"
    assert (out / "MRPC.tsv").read_text() == "index\tprediction\n7\t0\n9\t1\n"
    assert task.predictions["dev"].predictions.tolist() == [1, 1, 1]
    assert (sets["dev"].answers(), sets["test"].answers()) == ({0: 1, 1: 1, 2: 1}, {0: 0, 1: 1})
    task.write_scores(scores, out)
    text = f"acc = {scores['acc']}\nacc_and_f1 = {scores['acc_and_f1']}\nf1 = {scores['f1']}\n"
    assert (out / "eval_results.txt").read_text() == text and read_json(out / "eval_results.json") == scores
    task.write_scores({}, out)
    assert read_json(out / "eval_results.json") == scores  # a prediction alone does not erase them
    assert len(list(out.iterdir())) == 6


def test_says_what_it_predicts_and_into_which_files(
    make_task: MakeTask, mrpc: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sets, out = by_name(make_task(GlueSource("mrpc", mrpc), do_predict=True)), tmp_path / "out"
    assert sets["test"].rows == f"rows of {mrpc / 'test.tsv'}"
    with caplog.at_level(logging.INFO, "twinquant"):
        sets["dev"].finish(logits_for([1, 1, 1], 2), None)
        assert not caplog.messages
        sets["test"].finish(logits_for([0, 1], 2), out)
    assert caplog.messages == [
        f"predictions: {out}/predictions_test.json, {out}/predict_results_mrpc.txt, {out}/MRPC.tsv"
    ]


def test_mismatched_set(make_task: MakeTask, tmp_path: Path) -> None:
    names = [f"c{index}" for index in range(8)] + ["sentence1", "sentence2", "gold_label"]
    for file in ("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched"):
        rows = [[*map(str, range(8)), "a", "the", label] for label in ("neutral", "entailment")]
        (tmp_path / f"{file}.tsv").write_text("".join("\t".join(row) + "\n" for row in [names, *rows]))
    task = make_task(GlueSource("mnli", tmp_path), do_predict=True)
    sets, out = by_name(task), tmp_path / "out"
    assert list(sets) == ["dev", "dev_mm", "test", "test_mm"]
    scores: dict[str, float] = {}
    for number, prediction_set in enumerate(sets.values()):
        scores |= prediction_set.finish(logits_for([2, number % 2], 3), out)
    assert scores == {"acc": 0.5, "acc_mm": 1.0} and task.main_score(scores) == 0.5
    assert {path.name for path in out.iterdir()} == {
        "predictions_dev.json", "predictions_dev_mm.json", "predictions_test.json", "predictions_test_mm.json",
        "predict_results_mnli.txt", "predict_results_mnli-mm.txt", "MNLI-m.tsv", "MNLI-mm.tsv",
    }  # fmt: skip
    assert (out / "MNLI-mm.tsv").read_text() == "index\tprediction\n0\tneutral\n0\tentailment\n"
    alone = make_task(GlueSource("mnli-mm", tmp_path), do_predict=True)
    scores = by_name(alone)["dev_mm"].finish(logits_for([2, 1], 3), None)
    assert scores == {"acc_mm": 1.0} and alone.main_score(scores) == 1.0
    by_name(alone)["test_mm"].finish(logits_for([2, 1], 3), tmp_path / "alone")
    assert (tmp_path / "alone/predict_results_mnli-mm.txt").exists()


def test_own_data_is_reported_by_class(
    make_task: MakeTask, own: Callable[..., OwnDataSource], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = make_task(own(train="bad good fair", validation="bad good good", test="good fair"), do_predict=True)
    sets, out = by_name(task), tmp_path / "out"
    with caplog.at_level(logging.INFO, "twinquant"):
        scores = sets["dev"].finish(logits_for([0, 2, 0], 3), out)
    assert scores == pytest.approx({"acc": 2 / 3, "f1_macro": 2 / 3}) and task.main_score(scores) == scores["acc"]
    report = (out / "classification_report.txt").read_text()
    assert "0.5000" in report and "good" in report and report not in caplog.text
    with caplog.at_level(logging.INFO, "twinquant"):
        task.write_scores(scores, out)
        task.write_scores(scores, out)
    assert caplog.text.count(report) == 1
    test_scores = sets["test"].finish(logits_for([2, 1], 3), out)
    assert test_scores == {"acc_test": 1.0, "f1_macro_test": 1.0} and task.main_score(test_scores) == 1.0
    assert task.main_score(scores | test_scores) == scores["acc"]
    assert (out / "predict_results_text_classification.txt").read_text() == "index\tprediction\n0\tgood\n1\tfair\n"
    assert (out / "classification_report_test.txt").exists() and not list(out.glob("*.tsv"))


def test_regression(make_task: MakeTask, own: Callable[..., OwnDataSource], tmp_path: Path) -> None:
    task = make_task(own(train="0.5 1.5", validation="1.5 2.5 3.5", test="1 2"), do_predict=True)
    assert task.num_labels == 1 and task.label_names is None
    assert task.train_features().batch([0, 1])["label_values"].tolist() == [0.5, 1.5]
    outputs = {"logits": [np.array([value], np.float32) for value in (1.0, 2.0, 3.0)]}
    scores = by_name(task)["dev"].finish(outputs, tmp_path)
    assert scores == pytest.approx({"mse": 0.25, "pearson": 1.0, "spearmanr": 1.0, "corr": 1.0})
    assert task.main_score(scores) == scores["corr"]
    assert read_json(tmp_path / "predictions_dev.json") == {"labels": [1.5, 2.5, 3.5], "predictions": [1.0, 2.0, 3.0]}
    by_name(task)["test"].finish({"logits": np.array([[1.23456], [-0.5]], np.float32)}, tmp_path)
    expected = "index\tprediction\n0\t1.235\n1\t-0.500\n"
    assert (tmp_path / "predict_results_text_classification.txt").read_text() == expected
    assert not (tmp_path / "classification_report.txt").exists()


def test_nothing_is_written_without_a_folder(make_task: MakeTask, mrpc: Path, tmp_path: Path) -> None:
    task = make_task(GlueSource("mrpc", mrpc), do_predict=True)
    before = sorted(tmp_path.rglob("*"))
    for prediction_set in task.prediction_sets():
        prediction_set.finish(logits_for([0] * len(prediction_set.features()), 2), None)
    assert sorted(tmp_path.rglob("*")) == before and task.predictions.keys() == {"dev", "test"}


def test_first_rows_only(make_task: MakeTask, mrpc: Path) -> None:
    task = make_task(
        GlueSource("mrpc", mrpc), max_train_samples=3, max_eval_samples=2, max_predict_samples=1, do_predict=True
    )
    assert task.train_examples_count == len(task.train_features()) == len(task.calibration_features(9)) == 3
    assert {name: len(s.features()) for name, s in by_name(task).items()} == {"dev": 2, "test": 1}
    assert len(task.calibration_features(2)) == 2
    assert task.part == "the first 2 examples"
    rows = len(by_name(make_task(GlueSource("mrpc", mrpc)))["dev"].features())
    for limit, part in ((rows + 1, ""), (rows, ""), (rows - 1, f"the first {rows - 1} examples")):
        assert make_task(GlueSource("mrpc", mrpc), max_eval_samples=limit).part == part
        assert make_task(GlueSource("mrpc", mrpc)).first_examples(limit).part == part
    assert make_task(GlueSource("mrpc", mrpc)).part == ""


@pytest.mark.parametrize(
    ("do_eval", "do_predict", "names"),
    [(True, False, ["dev"]), (False, True, ["test"]), (False, False, []), (True, True, ["dev", "test"])],
)
def test_sets_that_are_asked_for(
    make_task: MakeTask, mrpc: Path, do_eval: bool, do_predict: bool, names: list[str]
) -> None:
    if not do_eval:
        (mrpc / "dev.tsv").unlink()  # a file that is not asked for need not be there
    task = make_task(GlueSource("mrpc", mrpc), do_eval=do_eval, do_predict=do_predict)
    assert list(by_name(task)) == names
    task.train_features()


def test_faults_of_dev_show_before_training(make_task: MakeTask, mrpc: Path) -> None:
    (mrpc / "dev.tsv").write_text("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n2\t1\t2\ta\tb\n")
    task = make_task(GlueSource("mrpc", mrpc))
    with pytest.raises(UserError, match="dev.tsv, line 2: the label is '2'"):
        task.train_features()


def test_cache_and_fingerprint(make_task: MakeTask, mrpc: Path, tmp_path: Path) -> None:
    source, cache = GlueSource("mrpc", mrpc), tmp_path / "cache"
    for settings in ({}, {}, {"max_seq_length": 64}, {"do_lower_case": False}, {"max_train_samples": 2}):
        make_task(source, cache_dir=cache, **settings).train_features()
    assert len(list(cache.iterdir())) == 4
    expected = make_task(source).train_features().batch(range(4))
    cached = make_task(source, cache_dir=cache).train_features().batch(range(4))
    assert {name: array.tolist() for name, array in cached.items()} == {
        name: array.tolist() for name, array in expected.items()
    }
    fingerprints = [make_task(source, **settings).training_fingerprint() for settings in
                    ({}, {}, {"max_seq_length": 64}, {"do_lower_case": False}, {"max_train_samples": 2})]  # fmt: skip
    texts = [json.dumps(fingerprint) for fingerprint in fingerprints]
    assert texts[0] == texts[1] and len(set(texts)) == 4


def test_empty_and_long_texts_are_said_once(
    make_task: MakeTask, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "train.txt"
    path.write_text("\t1\nthe cat sat on the mat\t0\nthe cat sat on the dog\t0\n")
    for _ in range(2):  # the second time from the cache
        caplog.clear()
        task = make_task(OwnDataSource(path), max_seq_length=6, cache_dir=tmp_path / "cache", do_eval=False)
        with caplog.at_level(logging.WARNING, "twinquant"):
            task.train_features()
            task.train_features()
        assert [record.getMessage() for record in caplog.records] == [
            f"{path}: 1 row(s) have an empty text; they are kept",
            f"{path}: 2 row(s) are longer than --max_seq_length 6 tokens and were cut",
        ]


def test_logits_that_are_not_finite(make_task: MakeTask, mrpc: Path) -> None:
    dev = by_name(make_task(GlueSource("mrpc", mrpc)))["dev"]
    logits = np.zeros((3, 2), np.float32)
    logits[1, 0] = np.nan
    with pytest.raises(UserError, match="logits for example 1 are not finite"):
        dev.finish({"logits": logits}, None)
    with pytest.raises(ValueError, match="logits have the shape"):
        dev.finish({"logits": logits[:2]}, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_seq_length": 513, "max_position_embeddings": 512}, "--max_seq_length 513"),
        ({"max_seq_length": 4}, "expected at least 5"),
        ({"max_train_samples": 0}, "--max_train_samples is 0; expected at least 1"),
        ({"max_eval_samples": -1}, "--max_eval_samples is -1"),
        ({"max_predict_samples": 0}, "--max_predict_samples is 0"),
        ({"vocab_size": 30522}, "but the model's word embeddings have 30522 rows"),
        ({"vocab_file": "missing.txt"}, "missing.txt does not exist"),
    ],
)
def test_bad_settings_are_refused_at_once(
    make_task: MakeTask, mrpc: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_task(GlueSource("mrpc", mrpc), **settings)
