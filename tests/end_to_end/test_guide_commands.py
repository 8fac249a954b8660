"""FasterTransformer's guide for TensorFlow, command by command, with its flags as they are printed there.

Only `mpirun -np 4 -H localhost:4 ...` is left out here, for speed: see test_mpirun.py. File names are the guide's.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from small_runs import (
    BACKENDS,
    Outcome,
    assert_equal_arrays,
    checkpoint_files,
    flags,
    saved,
    succeed,
    write_google_folder,
    write_squad_folder,
)

TRAIN_QUESTIONS = 28
FINE_TUNED_STEP = 7  # int(28 / 8 * 2); an epoch rounded down to whole batches would give 6
DISTILLED_STEP = 35  # int(28 / 8 * 10)
FILES = """--bert_config_file=squad_model/bert_config.json --vocab_file=squad_model/vocab.txt
    --train_file=squad_data/train-v1.1.json --predict_file=squad_data/dev-v1.1.json """
CALIBRATE = "--train_batch_size=16 --calib_batch=16 --calib_method=percentile --quant_mode=ft2 "
COMMANDS = {
    "finetuned_base": FILES
    + """--init_checkpoint=squad_model/bert_model.ckpt --output_dir=squad_model/finetuned_base --do_train=True
    --do_predict=True --if_quant=False --train_batch_size=8 --learning_rate=1e-5 --num_train_epochs=2.0
    --save_checkpoints_steps 1000 --horovod""",
    "PTQ_mode_2": FILES
    + f"""--init_checkpoint=squad_model/finetuned_base/model.ckpt-{FINE_TUNED_STEP} --output_dir=squad_model/PTQ_mode_2
    --do_train=False --do_predict=True --do_calib=True --if_quant=True {CALIBRATE} --percentile=99.999""",
    "QAT_calibrated_mode_2": FILES
    + f"""--init_checkpoint=squad_model/bert_model.ckpt --output_dir=squad_model/QAT_calibrated_mode_2 --do_train=False
    --do_calib=True {CALIBRATE} --percentile=99.99""",
    "QAT_mode_2": FILES
    + """--init_checkpoint=squad_model/QAT_calibrated_mode_2/model.ckpt-calibrated --output_dir=squad_model/QAT_mode_2
    --do_train=True --do_predict=True --if_quant=True --train_batch_size=8 --learning_rate=1e-5 --num_train_epochs=2.0
    --save_checkpoints_steps 1000 --quant_mode=ft2 --horovod""",
    "PTQ_mode_2_for_KD": FILES
    + f"""--init_checkpoint=squad_model/finetuned_base/model.ckpt-{FINE_TUNED_STEP}
    --output_dir=squad_model/PTQ_mode_2_for_KD --do_train=False --do_predict=False --do_calib=True --if_quant=True
    {CALIBRATE} --percentile=99.99""",
    "QAT_KD_mode_2": FILES
    + f"""--init_checkpoint=squad_model/PTQ_mode_2_for_KD/model.ckpt-calibrated --output_dir=squad_model/QAT_KD_mode_2
    --do_train=True --do_predict=True --if_quant=True --train_batch_size=8 --learning_rate=2e-5 --num_train_epochs=10.0
    --save_checkpoints_steps 1000 --quant_mode=ft2 --horovod --distillation=True
    --teacher=squad_model/finetuned_base/model.ckpt-{FINE_TUNED_STEP}""",
}
TRAINED = {"finetuned_base": FINE_TUNED_STEP, "QAT_mode_2": FINE_TUNED_STEP, "QAT_KD_mode_2": DISTILLED_STEP}
CALIBRATED = ("PTQ_mode_2", "QAT_calibrated_mode_2", "PTQ_mode_2_for_KD")
PREDICTED = ("finetuned_base", "PTQ_mode_2", "QAT_mode_2", "QAT_KD_mode_2")


class Guide:
    """The guide's commands on one backend, each run once, in order, when a test first asks for it."""

    def __init__(self, backend: str, folder: Path) -> None:
        self.backend, self.folder = backend, folder
        self.outcome = cache(self._outcome)
        write_google_folder(folder / "squad_model", positions=384, layers=2)  # the guide leaves --max_seq_length at 384
        write_squad_folder(folder / "squad_data", TRAIN_QUESTIONS)

    def _outcome(self, command: str) -> Outcome:
        earlier = list(COMMANDS)[: list(COMMANDS).index(command)]
        if earlier:
            self.outcome(earlier[-1])
        return succeed(*flags(COMMANDS[command]), f"--backend={self.backend}", cwd=self.folder)

    def output(self, command: str) -> Path:
        """The command's output_dir, after it has run."""
        self.outcome(command)
        return self.folder / "squad_model" / command


@pytest.fixture(scope="module", params=BACKENDS)
def guide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Guide:
    return Guide(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("command", COMMANDS)
def test_command_succeeds(guide: Guide, command: str) -> None:
    """--horovod with a single process is accepted, and the log says so."""
    outcome = guide.outcome(command)
    assert ("note: --horovod" in outcome.err) == ("--horovod" in COMMANDS[command])
    assert f"backend: {guide.backend}" in outcome.err


@pytest.mark.parametrize("command", TRAINED)
def test_training_saves_the_step_that_the_guide_counts(guide: Guide, command: str) -> None:
    folder, step = guide.output(command), TRAINED[command]
    for file in checkpoint_files(f"model.ckpt-{step}", guide.backend):
        assert (folder / file).is_file(), file
    assert len(list(folder.glob("model.ckpt-*training_state*"))) == 1
    state = (folder / "checkpoint").read_text()
    assert state.splitlines() == [
        f'model_checkpoint_path: "model.ckpt-{step}"',
        f'all_model_checkpoint_paths: "model.ckpt-{step}"',
    ]


@pytest.mark.parametrize("command", CALIBRATED)
def test_calibration_saves_the_calibrated_checkpoint(guide: Guide, command: str) -> None:
    folder = guide.output(command)
    for file in checkpoint_files("model.ckpt-calibrated", guide.backend):
        assert (folder / file).is_file(), file
    assert (folder / "checkpoint").read_text().startswith('model_checkpoint_path: "model.ckpt-calibrated"\n')
    report = json.loads((folder / "calibration.json").read_text())
    assert report["calib_method"] == "percentile" and report["percentile"] in (99.99, 99.999)
    assert report["batches"] == 16 and report["batch_size"] == 16


@pytest.mark.parametrize("command", PREDICTED)
def test_prediction_writes_answers_and_scores(guide: Guide, command: str) -> None:
    outcome, folder = guide.outcome(command), guide.output(command)
    dev = json.loads((guide.folder / "squad_data/dev-v1.1.json").read_text())
    contexts = {
        qa["id"]: paragraph["context"]
        for article in dev["data"]
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    }
    answers = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))
    assert list(answers) == list(contexts)
    for identifier, answer in answers.items():
        assert answer and answer in " ".join(contexts[identifier].split())
    best = json.loads((folder / "nbest_predictions.json").read_text(encoding="utf-8"))
    assert {identifier: entries[0]["text"] for identifier, entries in best.items()} == answers
    assert not (folder / "null_odds.json").exists()
    assert outcome.scores == json.loads((folder / "eval_results.json").read_text())
    assert set(outcome.scores) == {"exact_match", "f1"}
    assert 0 <= outcome.scores["exact_match"] <= outcome.scores["f1"] <= 100


@pytest.mark.parametrize("command", ["QAT_calibrated_mode_2", "PTQ_mode_2_for_KD"])
def test_without_prediction_standard_output_is_empty(guide: Guide, command: str) -> None:
    assert guide.outcome(command).out == ""
    assert not (guide.output(command) / "predictions.json").exists()


@pytest.mark.parametrize("command", TRAINED)
def test_losses_are_finite(guide: Guide, command: str) -> None:
    losses = guide.outcome(command).losses
    assert losses and np.isfinite(losses).all()


@pytest.mark.parametrize(
    ("command", "start"),
    [
        ("finetuned_base", "bert_model.ckpt"),
        ("QAT_mode_2", "QAT_calibrated_mode_2/model.ckpt-calibrated"),
        ("QAT_KD_mode_2", "PTQ_mode_2_for_KD/model.ckpt-calibrated"),
    ],
)
def test_training_moves_every_tensor(guide: Guide, command: str, start: str) -> None:
    after = saved(guide.output(command) / f"model.ckpt-{TRAINED[command]}").tensors
    before = saved(guide.folder / "squad_model" / start).tensors
    # The softmax over keys is the same with any key bias, so its gradient is 0 but for rounding.
    for name in [name for name in before if name in after and not name.endswith("/key/bias")]:
        assert np.isfinite(after[name]).all(), name
        assert not np.array_equal(after[name], before[name]), name


def test_calibration_leaves_the_weights(guide: Guide) -> None:
    calibrated = saved(guide.output("PTQ_mode_2") / "model.ckpt-calibrated").tensors
    fine_tuned = saved(guide.output("finetuned_base") / f"model.ckpt-{FINE_TUNED_STEP}").tensors
    assert_equal_arrays(calibrated, fine_tuned)


@pytest.mark.parametrize(
    ("trained", "calibrated"), [("QAT_mode_2", "QAT_calibrated_mode_2"), ("QAT_KD_mode_2", "PTQ_mode_2_for_KD")]
)
def test_training_never_updates_ranges(guide: Guide, trained: str, calibrated: str) -> None:
    after = saved(guide.output(trained) / f"model.ckpt-{TRAINED[trained]}").ranges
    before = saved(guide.output(calibrated) / "model.ckpt-calibrated").ranges
    assert len(before) == 2 * 29 + 1
    assert_equal_arrays(after, before)


def test_ranges_follow_the_percentile(guide: Guide) -> None:
    """Calibrated twice on the same model and data: a higher percentile clips less."""
    higher = saved(guide.output("PTQ_mode_2") / "model.ckpt-calibrated").ranges
    lower = saved(guide.output("PTQ_mode_2_for_KD") / "model.ckpt-calibrated").ranges
    assert all((higher[scope] >= lower[scope]).all() for scope in lower)
    assert any((higher[scope] > lower[scope]).any() for scope in lower)


def test_quantization_changes_the_logits(guide: Guide) -> None:
    files = [guide.output(command) / "nbest_predictions.json" for command in ("finetuned_base", "PTQ_mode_2")]
    plain, quantized = ([entry[0]["start_logit"] for entry in json.loads(f.read_text()).values()] for f in files)
    assert plain != quantized
    np.testing.assert_allclose(quantized, plain, atol=0.5)


def test_settings_are_recorded(guide: Guide) -> None:
    settings = json.loads((guide.output("PTQ_mode_2") / "settings.json").read_text())
    expected = {"quant_mode": "ft2", "percentile": 99.999, "if_quant": True, "calib_batch": 16, "max_seq_length": 384}
    assert {name: settings[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("trainer", "calibrator"), [BACKENDS, BACKENDS[::-1]], ids=["tensorflow-first", "pytorch-first"]
)
def test_commands_may_change_backends(trainer: str, calibrator: str, workplace: Path) -> None:
    """Fine-tuned in one framework, calibrated in the other from its files, predicted in the first from theirs."""
    common = [*flags(FILES), "--max_seq_length=128", "--train_batch_size=8", "--max_query_length=24"]
    train = ["--init_checkpoint=squad_model/bert_model.ckpt", "--do_train", "--max_steps=2"]
    succeed(*common, *train, "--output_dir=tuned", f"--backend={trainer}", cwd=workplace)
    ptq = ["--do_calib", "--do_predict", "--if_quant", "--init_checkpoint=tuned/model.ckpt-2", "--output_dir=ptq"]
    there = succeed(*common, *ptq, f"--backend={calibrator}", cwd=workplace)
    predict = ["--do_predict", "--if_quant", "--init_checkpoint=ptq/model.ckpt-calibrated", "--output_dir=back"]
    back = succeed(*common, *predict, f"--backend={trainer}", cwd=workplace)
    answers = [json.loads((workplace / name / "predictions.json").read_text()) for name in ("ptq", "back")]
    assert answers[0] == answers[1] and there.scores == back.scores
    assert_equal_arrays(
        saved(workplace / "ptq/model.ckpt-calibrated").tensors, saved(workplace / "tuned/model.ckpt-2").tensors
    )
