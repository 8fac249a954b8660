"""When run_glue.py evaluates and saves while training."""

import pytest
from glue_files import GlueFiles, make_glue_files, notes_with

from twinquant.errors import UserError


@pytest.fixture
def glue(tmp_path) -> GlueFiles:
    return make_glue_files(tmp_path)


class TestEvaluationWhileTraining:
    @pytest.mark.parametrize(
        "argv, steps, per_epoch",
        [
            ([], None, False),
            (["--eval_strategy=no"], None, False),
            (["--evaluate_during_training"], 50, False),
            (["--evaluate_during_training", "--logging_steps=7"], 7, False),
            (["--evaluate_during_training", "--eval_steps=3"], 3, False),
            (["--eval_strategy=steps", "--logging_steps=7"], 7, False),
            (["--evaluation_strategy", "steps", "--eval_steps", "3"], 3, False),
            (["--eval_strategy", "epoch"], None, True),
            (["--eval_strategy", "epoch", "--evaluate_during_training"], None, True),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_when(self, glue, argv, steps, per_epoch):
        settings = glue.parse("--do_train", *argv)
        assert (settings.evaluate_steps, settings.evaluate_per_epoch) == (steps, per_epoch)
        assert settings.evaluate_during_training is (steps is not None or per_epoch)

    def test_the_steps_are_said_when_they_are_those_of_the_log(self, glue):
        settings = glue.parse("--do_train", "--evaluate_during_training", "--logging_steps=7")
        assert notes_with(settings, "evaluation every 7 updates, as --logging_steps (no --eval_steps)")

    @pytest.mark.parametrize(
        "argv, text",
        [
            (
                ["--do_eval", "--evaluate_during_training"],
                "--evaluate_during_training has no effect without --do_train.",
            ),
            (["--do_eval", "--eval_steps=5"], "--eval_steps has no effect without --do_train."),
            (
                ["--do_eval", "--eval_strategy=epoch", "--load_best_model_at_end"],
                "--eval_strategy, --load_best_model_at_end have no effect without --do_train.",
            ),
            (["--do_train", "--eval_steps=5"], "--eval_steps has no effect without --eval_strategy=steps, found no."),
            (["--do_train", "--eval_all_checkpoints"], "--eval_all_checkpoints has no effect without --do_eval."),
            (
                ["--do_train", "--do_eval", "--eval_all_checkpoints"],
                "evaluates the 3 newest checkpoints: no more are kept",
            ),
            (["--do_eval", "--num_runs=5"], "--num_runs has no effect without --do_train."),
            (["--do_train", "--max_eval_samples=5"], "--max_eval_samples has no effect without --do_eval."),
            (["--do_eval", "--max_predict_samples=5"], "--max_predict_samples has no effect without --do_predict."),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_noted(self, glue, argv, text):
        settings = glue.parse(*argv)
        assert len(notes_with(settings, text)) == 1
        if not settings.do_train:
            assert not settings.evaluate_during_training and not settings.load_best_model_at_end
            assert (settings.evaluate_steps, settings.num_runs) == (None, 1)

    @pytest.mark.parametrize(
        "argv, sentence",
        [
            (["--load_best_model_at_end"], "--load_best_model_at_end needs evaluations to choose by: give"),
            (
                ["--evaluate_during_training", "--evaluation_strategy=no"],
                "--evaluate_during_training=True contradicts --evaluation_strategy=no; give one of them.",
            ),
            (["--eval_steps=0"], "--eval_steps takes a whole number of at least 1, found '0'."),
            (["--num_runs=0"], "--num_runs takes a whole number of at least 1, found '0'."),
            (["--num_runs=2", "--seed=4294967295"], "--num_runs=2 runs to the seed 4294967296, above 4294967295."),
        ],
    )
    def test_refused(self, glue, argv, sentence):
        with pytest.raises(UserError) as error:
            glue.parse("--do_train", *argv)
        assert str(error.value).startswith(sentence)


class TestSaving:
    @pytest.mark.parametrize(
        "argv, steps, per_epoch, notes",
        [
            (["--save_steps=10"], 10, False, 0),
            (["--save_strategy=steps", "--save_steps=10"], 10, False, 0),
            (["--save_steps", "0"], 2**31 - 1, False, 1),
            (["--save_steps", "-1"], 2**31 - 1, False, 1),
            (["--save_strategy=no"], 2**31 - 1, False, 1),
            (["--save_strategy=best"], 2**31 - 1, False, 1),
            (["--save_strategy=epoch"], 2**31 - 1, True, 1),
            (["--save_strategy=epoch", "--save_steps=10"], 2**31 - 1, True, 2),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_when(self, glue, argv, steps, per_epoch, notes):
        settings = glue.parse("--do_train", *argv)
        assert (settings.save_checkpoints_steps, settings.save_per_epoch) == (steps, per_epoch)
        assert len(notes_with(settings, "--save_")) == notes
