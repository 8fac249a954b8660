"""Scores during training: recorded, the best model kept, and an earlier part of the run taken over."""

import json

import pytest
from test_loop import CONFIG, TENSORS

from checkpoints.checkpoint import Checkpoint, load_checkpoint
from training.evaluations import Evaluations, remove_evaluations
from training.saves import RunFolder
from twinquant.errors import UserError
from twinquant.files import sha256_of_file


class ScoreTask:
    """The one method of a task that is asked here."""

    @staticmethod
    def main_score(scores):
        return scores["acc"]


def evaluations(folder, first_step=0):
    return Evaluations(RunFolder(folder, "pytorch", keep=2), ScoreTask(), first_step)


def model_at(step):
    """A model that can be told apart by one bias."""
    tensors = TENSORS | {"cls/squad/output_bias": TENSORS["cls/squad/output_bias"] * 0 + step}
    return lambda: Checkpoint(tensors, {}, CONFIG, "test")


def test_the_best_model_is_kept_and_is_not_the_latest(tmp_path):
    record = evaluations(tmp_path)
    for step, score in ((2, 0.5), (4, 0.75), (6, 0.75), (8, 0.25)):
        record.add(step, {"acc": score, "f1": 0.1}, model_at(step))
    sha256 = sha256_of_file(tmp_path / "model.ckpt-best/model.safetensors")
    assert record.best == {"step": 4, "score": 0.75, "scores": {"acc": 0.75, "f1": 0.1}, "model_sha256": sha256}
    saved = load_checkpoint(str(tmp_path / "model.ckpt-best"))
    assert saved.tensors["cls/squad/output_bias"].tolist() == [4.0, 4.0]
    assert not (tmp_path / "checkpoint").exists()
    assert [entry["step"] for entry in json.loads((tmp_path / "evaluations.json").read_text())] == [2, 4, 6, 8]


def test_the_best_model_is_that_of_the_best_entry(tmp_path, caplog):
    """Killed after step 4's model took the place of step 2's; on another machine step 4 is not the best again."""
    record = evaluations(tmp_path)
    for step, score in ((2, 0.5), (4, 0.9)):
        record.add(step, {"acc": score}, model_at(step))
    resumed = evaluations(tmp_path, first_step=2)
    assert (
        "model.ckpt-best is the model of none of the evaluations up to step 2" in caplog.text and resumed.best is None
    )
    resumed.add(4, {"acc": 0.4}, model_at(14))
    assert resumed.best["step"] == 4
    assert load_checkpoint(str(tmp_path / "model.ckpt-best")).tensors["cls/squad/output_bias"].tolist() == [14.0, 14.0]
    assert [entry["step"] for entry in json.loads((tmp_path / "evaluations.json").read_text())] == [2, 4]
    caplog.clear()
    assert evaluations(tmp_path, first_step=4).best["step"] == 4 and not caplog.text


@pytest.mark.parametrize("form", ["tensorflow", "pytorch"])
def test_nothing_of_an_earlier_run_is_left(tmp_path, form):
    """Killed before its first evaluation and resumed, a run took the earlier one's for its own."""
    folder = RunFolder(tmp_path, form, keep=2)
    Evaluations(folder, ScoreTask(), 0).add(2, {"acc": 0.9}, model_at(2))
    assert (tmp_path / "evaluations.json").exists()
    remove_evaluations(folder.other, [str(tmp_path / "model.ckpt-best")])  # which the run begins with
    assert load_checkpoint(str(tmp_path / "model.ckpt-best"))
    remove_evaluations(folder.other, [None])
    assert not (tmp_path / "evaluations.json").exists() and not list(tmp_path.glob("model.ckpt-best*"))


def test_a_resumed_run_forgets_what_lies_after_its_checkpoint(tmp_path):
    record = evaluations(tmp_path)
    for step, score in ((2, 0.5), (4, 0.9)):
        record.add(step, {"acc": score}, model_at(step))
    resumed = evaluations(tmp_path, first_step=2)
    assert [entry["step"] for entry in resumed.found] == [2]
    resumed.add(4, {"acc": 0.7}, model_at(14))
    assert load_checkpoint(str(tmp_path / "model.ckpt-best")).tensors["cls/squad/output_bias"].tolist() == [14.0, 14.0]
    assert evaluations(tmp_path).best is None


@pytest.mark.parametrize("content", ["", "{", "[{}]", '[{"step": "2", "score": 1}]', '{"step": 2}'])
def test_a_foreign_file_is_named(tmp_path, content):
    (tmp_path / "evaluations.json").write_text(content)
    with pytest.raises(UserError, match=r"evaluations\.json is not a list of evaluations"):
        evaluations(tmp_path, first_step=2)
