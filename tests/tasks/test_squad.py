"""The whole task: from files to features and from logits to scored files."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.base import Features, Task
from tasks.squad import SquadTask
from twinquant.errors import UserError

WriteSquad = Callable[..., Path]
CONTEXT = "The cat sat on the mat, a dog ran."


@pytest.fixture
def make_task(vocab_file: Path) -> Callable[..., SquadTask]:
    def make(**settings: Any) -> SquadTask:
        return SquadTask(**{"vocab_file": vocab_file, "max_query_length": 8} | settings)

    return make


def logits_at(features: Features, places: dict[int, tuple[int, int]], width: int) -> dict[str, np.ndarray]:
    """Logits 0, and 9 at the start and end position given for some rows."""
    outputs = {name: np.zeros((len(features), width), np.float32) for name in ("start_logits", "end_logits")}
    for row, (start, end) in places.items():
        outputs["start_logits"][row, start] = outputs["end_logits"][row, end] = 9.0
    return outputs


def test_scores_and_files(make_task: Callable[..., SquadTask], write_squad: WriteSquad, tmp_path: Path) -> None:
    path = write_squad((CONTEXT, [("a", "who", [("cat", 4), ("The cat", 0)]), ("b", "where", [("the mat", 15)])]))
    task = make_task(predict_file=path)
    assert isinstance(task, Task) and (task.name, task.head) == ("squad", "question_answering")
    features = task.predict_features()
    metrics = task.finish(logits_at(features, {0: (3, 4), 1: (8, 8)}, 20), tmp_path / "out")  # "The cat" and "mat"
    assert metrics == {"exact_match": 100.0, "f1": 100.0}
    out = tmp_path / "out"
    assert json.loads((out / "predictions.json").read_text()) == {"a": "The cat", "b": "mat"}
    task.write_scores(metrics, out)
    assert json.loads((out / "eval_results.json").read_text()) == metrics
    assert {path.name for path in out.iterdir()} == {"predictions.json", "nbest_predictions.json", "eval_results.json"}


def test_version_2(make_task: Callable[..., SquadTask], write_squad: WriteSquad, tmp_path: Path) -> None:
    path = write_squad((CONTEXT, [("a", "who", [("cat", 4)]), ("b", "where", [], {"is_impossible": True})]))
    task = make_task(predict_file=path, train_file=path, version_2_with_negative=True)
    assert task.train_examples_count == 2
    metrics = task.finish(logits_at(task.predict_features(), {0: (4, 4), 1: (0, 0)}, 20), tmp_path / "out")
    assert (metrics["exact_match"], metrics["f1"], metrics["NoAns_f1"]) == (100.0, 100.0, 100.0)
    assert json.loads((tmp_path / "out/predictions.json").read_text()) == {"a": "cat", "b": ""}
    assert json.loads((tmp_path / "out/null_odds.json").read_text()) == {"a": -18.0, "b": 18.0}


def test_says_what_it_predicts_and_where_the_answers_lie(
    make_task: Callable[..., SquadTask], write_squad: WriteSquad, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_squad((CONTEXT, [("a", "who", [("cat", 4)])]))
    task, out = make_task(predict_file=path), tmp_path / "out"
    [prediction_set] = task.prediction_sets()
    assert prediction_set.rows == f"windows of {path}"
    with caplog.at_level(logging.INFO, "twinquant"):
        prediction_set.finish(logits_at(task.predict_features(), {0: (4, 4)}, 20), None)
        assert not caplog.messages
        prediction_set.finish(logits_at(task.predict_features(), {0: (4, 4)}, 20), out)
    assert prediction_set.answers() == json.loads((out / "predictions.json").read_text())
    assert caplog.messages == [f"predictions: {out}/predictions.json, {out}/nbest_predictions.json"]


@pytest.mark.parametrize("version_2", [False, True], ids=["1.1", "2.0"])
def test_exact_matches(version_2: bool, make_task: Callable[..., SquadTask], write_squad: WriteSquad) -> None:
    """Which answers are right; their share is the exact match that the metrics tell."""
    questions: list = [("a", "who", [("cat", 4)]), ("b", "where", [("the mat", 15)]), ("c", "what", [("sat", 8)])]
    if version_2:
        questions.append(("d", "why", [], {"is_impossible": True}))
    task = make_task(predict_file=write_squad((CONTEXT, questions)), version_2_with_negative=version_2)
    places = {0: (3, 4), 1: (8, 8), 2: (4, 4), 3: (0, 0)}  # "The cat", "mat", "cat", and no answer
    metrics = task.finish(logits_at(task.predict_features(), dict(list(places.items())[: len(questions)]), 20), None)
    found = task.exact_matches({"a": "The cat", "b": "mat", "c": "cat", "d": ""})
    assert found == {"a": True, "b": True, "c": False} | ({"d": True} if version_2 else {})
    assert metrics["exact_match"] == pytest.approx(100 * sum(found.values()) / len(found))


def test_file_without_answers_is_not_scored(
    make_task: Callable[..., SquadTask], write_squad: WriteSquad, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = make_task(predict_file=write_squad((CONTEXT, [("a", "who")])))
    with caplog.at_level(logging.INFO, "twinquant"):
        assert task.finish(logits_at(task.predict_features(), {0: (4, 4)}, 20), tmp_path / "out") == {}
    assert "has no answers" in caplog.text
    assert json.loads((tmp_path / "out/predictions.json").read_text()) == {"a": "cat"}


def test_training_and_calibration_features(make_task: Callable[..., SquadTask], write_squad: WriteSquad) -> None:
    questions = [(str(number), "who", [("cat", 4)]) for number in range(6)] + [("lost", "who", [("dog", 4)])]
    task = make_task(train_file=write_squad((CONTEXT, questions)))
    assert task.train_examples_count == 6 and len(task.train_features()) == 6
    batch = task.calibration_features(4).batch(range(4))
    assert batch["start_positions"].tolist() == [4] * 4 and batch["end_positions"].tolist() == [4] * 4
    assert len(task.calibration_features(100)) == 6


def test_first_questions_only(make_task: Callable[..., SquadTask], write_squad: WriteSquad, tmp_path: Path) -> None:
    path = write_squad((CONTEXT, [(str(number), "who", [("cat", 4)]) for number in range(6)]))
    task = make_task(predict_file=path, max_predict_examples=2)
    metrics = task.finish(logits_at(task.predict_features(), {0: (4, 4), 1: (4, 4)}, 20), tmp_path / "out")
    assert metrics["exact_match"] == 100.0 and len(task.predict_features()) == 2


@pytest.mark.parametrize(
    ("limit", "part"), [(None, ""), (7, ""), (6, ""), (5, "the first 5 questions"), (4, "the first 4 questions")]
)
def test_a_part_is_less_than_the_file(
    make_task: Callable[..., SquadTask], write_squad: WriteSquad, limit: int | None, part: str
) -> None:
    questions = [(str(number), "who", [("cat", 4)]) for number in range(6)]
    task = make_task(predict_file=write_squad((CONTEXT, questions[:4]), (CONTEXT, questions[4:])))
    assert make_task(predict_file=task._predict_file, max_predict_examples=limit).part == part
    if limit is not None:
        assert task.first_examples(limit).part == part


def test_cache(make_task: Callable[..., SquadTask], write_squad: WriteSquad, tmp_path: Path) -> None:
    path = write_squad((CONTEXT, [("a", "who", [("cat", 4)])]))
    settings = {"train_file": path, "predict_file": path, "cache_dir": tmp_path / "cache"}
    first, second = make_task(**settings), make_task(**settings)
    for name in ("train_features", "predict_features"):
        expected, actual = getattr(first, name)().batch([0]), getattr(second, name)().batch([0])
        assert {key: array.tolist() for key, array in actual.items()} == {
            key: array.tolist() for key, array in expected.items()
        }
    assert len(list((tmp_path / "cache").iterdir())) == 2
    make_task(**settings, max_predict_examples=1).predict_features()
    make_task(**settings, doc_stride=7).predict_features()
    make_task(**settings, overwrite_cache=True).predict_features()
    assert len(list((tmp_path / "cache").iterdir())) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_seq_length": 513, "max_position_embeddings": 512}, "--max_seq_length 513"),
        ({"max_seq_length": 11}, "at least 12"),
        ({"doc_stride": 0}, "--doc_stride is 0"),
        ({"n_best_size": 0}, "--n_best_size is 0"),
        ({"max_answer_length": 0}, "--max_answer_length is 0"),
        ({"max_predict_examples": 0}, "expected at least 1"),
        ({"vocab_size": 30522}, "but the model's word embeddings have 30522 rows"),
        ({"vocab_file": "missing.txt"}, "missing.txt does not exist"),
    ],
)
def test_bad_settings_are_refused_at_once(
    make_task: Callable[..., SquadTask], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_task(**settings)


def test_missing_files_are_named(make_task: Callable[..., SquadTask]) -> None:
    with pytest.raises(UserError, match="--train_file is missing"):
        make_task().train_features()
    with pytest.raises(UserError, match="--predict_file is missing"):
        make_task().predict_features()


def test_windows_that_do_not_overlap_are_said(
    make_task: Callable[..., SquadTask], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "twinquant"):
        make_task(max_seq_length=128, doc_stride=116)
        assert not caplog.records
        make_task(max_seq_length=128, doc_stride=117)
    assert "--doc_stride 117" in caplog.text and "do not overlap" in caplog.text


def test_gold_answers_are_recovered_from_perfect_logits(shared_data: Path, tmp_path: Path) -> None:
    """On the real dev set, logits that point at the first gold answer give that answer back."""
    content = json.loads((shared_data / "squad/dev-v1.1.json").read_text(encoding="utf-8"))
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                question["answers"] = question["answers"][:1]
    path = tmp_path / "first-answers.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    vocab_file = shared_data / "models/minilm-squad/vocab.txt"
    task = SquadTask(vocab_file=vocab_file, train_file=path, predict_file=path, max_answer_length=60)
    truth, features = task.train_features(), task.predict_features()
    assert task.train_examples_count == 10570 and len(truth) == len(features) == 10833
    starts, ends = truth.start_positions, truth.end_positions
    assert starts is not None and ends is not None
    places = {row: (int(starts[row]), int(ends[row])) for row in np.flatnonzero(starts)}
    metrics = task.finish(logits_at(features, places, 384), tmp_path / "out")
    assert metrics["exact_match"] > 99.0 and metrics["f1"] > 99.5
