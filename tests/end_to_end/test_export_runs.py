"""run_squad.py and run_glue.py export what `python -m export onnx` would make of the checkpoint they end with."""

import contextlib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from small_runs import BACKENDS, flags, run, succeed
from test_glue_runs import TASK, glue, place  # noqa: F401  (a fixture)

import run_glue
from export.__main__ import main as export_main
from export.verdict import Verdict
from tasks.classification import ClassificationTask
from tasks.squad import SquadTask
from twinquant.main import run_main

SQUAD = flags(
    """--bert_config_file=squad_model/bert_config.json --vocab_file=squad_model/vocab.txt
    --train_file=squad_data/train-v1.1.json --predict_file=squad_data/dev-v1.1.json --max_seq_length=64
    --max_query_length=16 --doc_stride=32 --train_batch_size=4 --learning_rate=1e-3 --export_check_examples=3"""
)
START = "--init_checkpoint=squad_model/bert_model.ckpt"
QAT = ["--do_calib", "--calib_batch=2", "--do_train", "--max_steps=3", "--do_predict", "--if_quant", "--quant_mode=ft1"]
PHASES = ("--do_train", "--do_predict", "--do_calib", "--calib_batch=2")


def export_onnx(cwd: Path, *words: str) -> None:
    """`python -m export onnx`, unchecked: the check decides whether a model is kept, not what it is."""
    with contextlib.chdir(cwd), contextlib.redirect_stderr(io.StringIO()) as err:
        with contextlib.redirect_stdout(io.StringIO()):
            code = run_main(export_main, "python -m export", ["onnx", "--nocheck", *words])
    assert code == 0, err.getvalue()


@pytest.fixture
def any_model_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of anything else: an untrained model's answers hang on the last bit of its logits."""
    judge = Verdict.judge
    bounds = {"min_equal_answers": 0.0, "max_score_difference": 100.0, "max_relative_difference": 1e9}
    monkeypatch.setattr(Verdict, "judge", lambda self, given: judge(self, given.__class__(**bounds)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_and_the_command_write_the_same_bytes(workplace: Path, backend: str, any_model_passes: None) -> None:
    """Calibrated, trained quantized, predicted, exported; then the last checkpoint by the command, and files beside."""
    words = [*SQUAD, START, *QAT, f"--backend={backend}", "--output_dir=out", "--export_onnx=onnx/run"]
    outcome = succeed(*words, "--int8_embeddings", cwd=workplace)
    assert outcome.scores.keys() == {"exact_match", "f1"}  # still the last line of standard output
    assert "of 3 differ" in outcome.err and "passed" in outcome.err
    chosen = ["--precision=int8", "--quant_mode=ft1", "--int8_embeddings"]
    export_onnx(workplace, "--checkpoint=out/model.ckpt-3", "--output=onnx/command", *chosen)
    for name in ("model.onnx", "config.json", "vocab.txt"):
        assert (workplace / "onnx/run" / name).read_bytes() == (workplace / "onnx/command" / name).read_bytes(), name
    # A TensorFlow checkpoint does not tell this, and the run knows it.
    assert json.loads((workplace / "onnx/run/tokenizer_config.json").read_text())["do_lower_case"] is True
    assert json.loads((workplace / "out/settings.json").read_text())["export"]["onnx"] == "onnx/run"


@pytest.mark.parametrize("backend", BACKENDS)
def test_after_a_calibration_alone(workplace: Path, backend: str, any_model_passes: None) -> None:
    """int8 with its ranges, into a Triton repository too; the mode is what calibration.json tells the command."""
    succeed(*SQUAD, START, "--do_train", "--max_steps=2", f"--backend={backend}", "--output_dir=fp32", cwd=workplace)
    words = [*SQUAD, "--init_checkpoint=fp32/model.ckpt-2", "--do_calib", "--calib_batch=2", "--quant_mode=trt"]
    exports = ["--export_onnx=m.onnx", "--export_trtis", "--trtis_model_name=qa", "--trtis_model_version=4"]
    outcome = succeed(*words, *exports, f"--backend={backend}", "--output_dir=out", cwd=workplace)
    export_onnx(workplace, "--checkpoint=out/model.ckpt-calibrated", "--output=c.onnx", "--precision=int8")
    expected = (workplace / "c.onnx").read_bytes()
    assert (workplace / "m.onnx").read_bytes() == expected
    assert (workplace / "out/trtis_models/qa/4/model.onnx").read_bytes() == expected
    assert "wrote out/trtis_models/qa/config.pbtxt" in outcome.err
    assert outcome.err.count("exporting ") == 1  # once for both


def test_an_export_alone(workplace: Path) -> None:
    """The model of --init_checkpoint, and not what another run left in --output_dir; on random tokens without data."""
    succeed(*SQUAD, START, "--do_train", "--max_steps=2", "--backend=tensorflow", "--output_dir=out", cwd=workplace)
    succeed(*SQUAD, START, "--do_train", "--max_steps=1", "--backend=pytorch", "--output_dir=other", cwd=workplace)
    words = ["--max_seq_length=64", "--max_query_length=16", "--backend=pytorch", "--output_dir=out"]
    model = ["--init_checkpoint=other/model.ckpt-1", "--export_trtis", "--export_target=tensorrt"]
    outcome = succeed(*words, *model, cwd=workplace)
    assert "exporting other/model.ckpt-1: fp32, target tensorrt" in outcome.err and not outcome.out
    export_onnx(workplace, "--checkpoint=other/model.ckpt-1", "--output=c.onnx", "--target=tensorrt")
    version = workplace / "out/trtis_models/bert/1"
    assert (version / "model.onnx").read_bytes() == (workplace / "c.onnx").read_bytes()
    assert sorted(path.name for path in version.iterdir()) == [
        "README.md", "config.json", "model.onnx", "tokenizer_config.json", "vocab.txt",
    ]  # fmt: skip
    # Without --init_checkpoint: the newest of the folder, as for a prediction.
    assert "exporting out/model.ckpt-2: fp32" in succeed(*words, "--export_onnx=o", cwd=workplace).err


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model fails its check."""
    judge = Verdict.judge

    def fail(self: Verdict, bounds) -> None:
        judge(self, bounds)
        self.failures = ["it differs on purpose"]

    monkeypatch.setattr(Verdict, "judge", fail)


@pytest.mark.parametrize("exports", [["--export_onnx=o"], ["--export_trtis"]], ids=["onnx", "triton"])
def test_a_failing_check_costs_none_of_the_other_results(workplace: Path, failing: None, exports: list[str]) -> None:
    words = [*SQUAD, START, "--do_train", "--max_steps=2", "--do_predict", "--json_summary=s.json", "--output_dir=out"]
    outcome = run(*words, "--backend=pytorch", *exports, cwd=workplace)
    assert outcome.code == 2 and "Traceback" not in outcome.err
    name = "o/model.onnx" if exports == ["--export_onnx=o"] else "out/trtis_models/bert/1/model.onnx"
    assert outcome.err.splitlines()[-1] == (
        f"run_squad.py: error: {name} was not written, it fails its check: it differs on purpose. The rest of the run "
        "is in its place; `python -m export onnx --checkpoint=out/model.ckpt-2 --output=...` takes bounds of its own"
    )
    assert outcome.scores == {
        key: value
        for key, value in json.loads((workplace / "s.json").read_text()).items()
        if key in ("exact_match", "f1")
    }
    assert (workplace / "out/model.ckpt-2").is_dir() and (workplace / "out/predictions.json").is_file()
    found = [path for folder in ("o", "out/trtis_models") for path in (workplace / folder).rglob("*") if path.is_file()]
    assert found == []
    # What is left to do is the export alone.
    assert run(*words, "--backend=pytorch", *exports, cwd=workplace).code == 2


def fails_before_training(cwd: Path, *words: str) -> str:
    outcome = run(
        *SQUAD, START, "--do_train", "--max_steps=2", "--backend=pytorch", "--output_dir=out", *words, cwd=cwd
    )
    assert "training 2 steps" not in outcome.err and not list((cwd / "out").glob("model.ckpt*"))
    return outcome.error()


def test_places_that_cannot_take_a_model_are_told_before_the_training(workplace: Path) -> None:
    (workplace / "file").write_text("no folder")
    assert "the folder file/deep cannot be made: Not a directory" in fails_before_training(
        workplace, "--export_onnx=file/deep"
    )
    (workplace / "m.onnx").mkdir()
    assert "cannot write the model m.onnx: a folder of that name is in the way" in fails_before_training(
        workplace, "--export_onnx=m.onnx"
    )
    (workplace / "taken").mkdir()
    config = json.loads((workplace / "squad_model/bert_config.json").read_text())
    (workplace / "taken/config.json").write_text(json.dumps(config | {"num_hidden_layers": 7}))
    assert "taken/config.json describes another model (num_hidden_layers is 7, not 1)" in fails_before_training(
        workplace, "--export_onnx=taken"
    )
    (workplace / "out/trtis_models/bert/1").mkdir(parents=True)
    assert "out/trtis_models/bert/1 is there already: choose another name or version" in fails_before_training(
        workplace, "--export_trtis"
    )
    assert sorted(path.name for path in (workplace / "taken").iterdir()) == ["config.json"]


def test_missing_ranges_are_told_before_the_training(workplace: Path) -> None:
    error = fails_before_training(workplace, "--export_onnx=o", "--export_precision=int8", "--if_quant")
    assert "has no range: squad_model/bert_model.ckpt was never calibrated" in error
    # A training in float leaves none that would fit its weights, whatever was calibrated before.
    error = fails_before_training(workplace, "--export_onnx=o", "--export_precision=int8")
    assert "--export_onnx writes no int8 model of a training in float" in error


def test_a_head_that_was_never_trained_is_not_exported(workplace: Path) -> None:
    words = [*SQUAD, START, "--do_calib", "--calib_batch=1", "--backend=pytorch", "--output_dir=out"]
    assert "the task's head was never trained" in run(*words, "--export_onnx=o", cwd=workplace).error()


def test_a_missing_package_is_told_before_the_training(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "--export_onnx needs the package onnxruntime" in fails_before_training(workplace, "--export_onnx=o")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_classifier_s_best_model(place: Path, backend: str, any_model_passes: None) -> None:  # noqa: F811
    """With --load_best_model_at_end the best checkpoint is exported, not the last; checked on the dev set's first."""
    words = [*TASK, "--do_train", "--do_eval", "--max_steps=4", "--eval_strategy=steps", "--eval_steps=1"]
    best = ["--load_best_model_at_end", "--export_check_examples=4", f"--export_onnx=best_{backend}"]
    outcome = glue(*words, *best, f"--backend={backend}", f"--output_dir=eval_{backend}", cwd=place)
    assert f"exporting eval_{backend}/model.ckpt-best: fp32" in outcome.err and " of 4 differ" in outcome.err
    export_onnx(place, f"--checkpoint=eval_{backend}/model.ckpt-best", f"--output=best_{backend}_command")
    for name in ("model.onnx", "config.json"):
        made = [(place / f"best_{backend}{end}" / name).read_bytes() for end in ("", "_command")]
        assert made[0] == made[1], name


def test_dynamic_quantization(place: Path) -> None:  # noqa: F811
    """The float model goes out as int8-dynamic, after PyTorch's own dynamic quantization of it."""
    train = ["--backend=pytorch", *TASK, "--do_train", "--max_steps=2", "--output_dir=dynamic_start"]
    glue(*train, cwd=place)
    words = [*TASK[:2], "--max_seq_length=32", "--init_checkpoint=dynamic_start/model.ckpt-2", "--do_eval"]
    scheme = ["--quant_scheme=dynamic", "--output_dir=dynamic", "--export_onnx=dynamic_onnx"]
    outcome = run(*words, *scheme, cwd=place, script=run_glue)
    assert outcome.code == 0, outcome.err
    assert "exporting dynamic_start/model.ckpt-2: int8-dynamic" in outcome.err
    assert (place / "dynamic_onnx/model.onnx").is_file()


def lengths(task: SquadTask | ClassificationTask) -> Sequence[np.ndarray]:
    return [one.features().lengths for one in task.prediction_sets()]


def test_first_examples(workplace: Path, place: Path) -> None:  # noqa: F811
    """A task's sample predicts the beginning of what the task predicts, and leaves the task as it is."""
    squad = SquadTask(
        vocab_file=workplace / "squad_model/vocab.txt",
        predict_file=workplace / "squad_data/dev-v1.1.json",
        max_seq_length=64,
        max_query_length=16,
        doc_stride=32,
        cache_dir=workplace / "cache",
    )
    (whole,) = lengths(squad)
    (sample,) = lengths(squad.first_examples(2))
    assert len(squad.first_examples(2).predict_examples) == 2 and len(sample) < len(whole)
    np.testing.assert_array_equal(sample, whole[: len(sample)])
    assert len(squad.predict_examples) == 10
    assert (squad.part, squad.first_examples(2).part) == ("", "the first 2 questions")
    from tasks.glue import GlueSource

    glue_task = ClassificationTask(
        source=GlueSource("mrpc", str(place / "MRPC"), None),
        vocab_file=place / "bert/vocab.txt",
        max_seq_length=32,
        do_predict=True,
        max_eval_samples=3,
    )
    assert [len(one) for one in lengths(glue_task.first_examples(5))] == [3, 5]
    assert [len(one) for one in lengths(glue_task)] == [3, 6]
