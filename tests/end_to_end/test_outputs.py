"""What a run leaves behind beside its checkpoints: SQuAD 2.0's files, summaries, cached features, standard output."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import BACKENDS, REPOSITORY, SAMPLES, flags, run, saved, start, succeed

MODEL = flags("--bert_config_file=squad_model/bert_config.json --vocab_file=squad_model/vocab.txt")
SHORT = flags("--max_seq_length=64 --max_query_length=16 --doc_stride=32 --train_batch_size=4")
DATA = flags("--train_file=squad_data/train-v1.1.json --predict_file=squad_data/dev-v1.1.json")
TRAIN = [*MODEL, *SHORT, *DATA, "--init_checkpoint=squad_model/bert_model.ckpt", "--do_train", "--max_steps=2"]


@pytest.fixture
def tuned(workplace: Path) -> Path:
    """A folder where tuned/model.ckpt-2 was trained (in PyTorch)."""
    succeed(*TRAIN, "--output_dir=tuned", "--backend=pytorch", cwd=workplace)
    return workplace


@pytest.mark.parametrize("backend", BACKENDS)
def test_squad_2(workplace: Path, backend: str) -> None:
    data = [f"--train_file={SAMPLES}/squad_v2_train.json", f"--predict_file={SAMPLES}/squad_v2_dev.json"]
    work = ["--version_2_with_negative", "--do_train", "--do_predict", "--max_steps=4", "--learning_rate=1e-3"]
    start_from = ["--init_checkpoint=squad_model/bert_model.ckpt", "--output_dir=out", f"--backend={backend}"]
    outcome = succeed(*MODEL, *SHORT, *data, *work, *start_from, cwd=workplace)
    dev = json.loads((SAMPLES / "squad_v2_dev.json").read_text(encoding="utf-8"))["data"]
    questions = [qa for article in dev for paragraph in article["paragraphs"] for qa in paragraph["qas"]]
    odds, answers, scores = (
        json.loads((workplace / "out" / name).read_text(encoding="utf-8"))
        for name in ("null_odds.json", "predictions.json", "eval_results.json")
    )
    assert list(odds) == list(answers) == [qa["id"] for qa in questions]
    assert all((answers[name] == "") == (odds[name] > 0) for name in odds)  # the default threshold
    assert scores["total"] == 32 and scores["NoAns_total"] == 12 and scores["HasAns_total"] == 20
    right = [answers[qa["id"]] == "" for qa in questions if qa["is_impossible"]]
    assert scores["NoAns_exact"] == pytest.approx(100 * sum(right) / len(right))
    mean = (scores["HasAns_f1"] * 20 + scores["NoAns_f1"] * 12) / 32
    assert scores["f1"] == pytest.approx(mean)
    assert outcome.scores == {name: scores[name] for name in ("exact_match", "f1")}
    beside = "out" if backend == "tensorflow" else "out/model.ckpt-4"
    card = (workplace / beside / "README.md").read_text(encoding="utf-8")
    windows = "--max_seq_length=64 --max_query_length=16 --doc_stride=32 --version_2_with_negative=True"
    assert f"{windows} ...` loads it" in card


@pytest.mark.parametrize(("threshold", "empty"), [("-1000", True), ("1000", False)], ids=["low", "high"])
def test_null_threshold(tuned: Path, threshold: str, empty: bool) -> None:
    predict = ["--do_predict", "--version_2_with_negative", f"--predict_file={SAMPLES}/squad_v2_dev.json"]
    model = ["--init_checkpoint=tuned/model.ckpt-2", "--output_dir=v2", "--backend=pytorch", *MODEL, *SHORT]
    succeed(*model, *predict, f"--null_score_diff_threshold={threshold}", cwd=tuned)
    answers = json.loads((tuned / "v2/predictions.json").read_text(encoding="utf-8"))
    assert all((answer == "") == empty for answer in answers.values())


def test_prediction_alone_takes_the_newest_checkpoint_of_the_folder(tuned: Path) -> None:
    """As TensorFlow's Estimator did; the log says so when --init_checkpoint names another."""
    predict = [*MODEL, *SHORT, *DATA, "--do_predict", "--output_dir=tuned", "--backend=pytorch"]
    plain = succeed(*predict, cwd=tuned)
    assert re.search(r"predicted \d+ windows of squad_data/dev-v1.1.json in .* per second\n", plain.err)
    assert "predictions: tuned/predictions.json, tuned/nbest_predictions.json\n" in plain.err
    named = succeed(*predict, "--init_checkpoint=squad_model/bert_model.ckpt", cwd=tuned)
    assert "predicting with tuned/model.ckpt-2, the newest in --output_dir" in named.err
    assert plain.scores == named.scores


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("flag", ["--output_dir=run", "--init_checkpoint=run"])
def test_a_run_s_folder_brings_config_and_vocabulary(workplace: Path, backend: str, flag: str) -> None:
    """Neither --bert_config_file nor --vocab_file is needed, whichever backend wrote the folder."""
    succeed(*TRAIN, "--output_dir=run", f"--backend={backend}", cwd=workplace)
    predict = [*SHORT, *DATA, "--do_predict", "--output_dir=elsewhere", flag, "--backend=pytorch"]
    assert "found beside the checkpoint" in succeed(*predict, cwd=workplace).err


def test_json_summary_and_number_of_questions(tuned: Path) -> None:
    predict = [*MODEL, *SHORT, *DATA, "--do_predict", "--output_dir=tuned", "--backend=pytorch"]
    outcome = succeed(
        *predict, "--json_summary=summary.json", "--num_eval_iterations=2", "--predict_batch_size=3", cwd=tuned
    )
    summary = json.loads((tuned / "summary.json").read_text())
    assert outcome.scores == {name: summary[name] for name in ("exact_match", "f1")}
    assert len(json.loads((tuned / "tuned/predictions.json").read_text())) == 6


def test_batch_size_does_not_change_answers(tuned: Path) -> None:
    predict = [*MODEL, *SHORT, *DATA, "--do_predict", "--init_checkpoint=tuned/model.ckpt-2", "--backend=pytorch"]
    found = []
    for size in (1, 7):
        succeed(*predict, f"--predict_batch_size={size}", f"--output_dir=size-{size}", cwd=tuned)
        found.append(json.loads((tuned / f"size-{size}/predictions.json").read_text()))
    assert found[0] == found[1]


def test_questions_without_answers_are_predicted_and_not_scored(tuned: Path) -> None:
    content = json.loads((tuned / "squad_data/dev-v1.1.json").read_text())
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                del qa["answers"]
    (tuned / "test.json").write_text(json.dumps(content))
    predict = [*MODEL, *SHORT, "--do_predict", "--predict_file=test.json", "--output_dir=tuned", "--backend=pytorch"]
    outcome = succeed(*predict, cwd=tuned)
    assert outcome.out == "" and "not scored" in outcome.err
    assert len(json.loads((tuned / "tuned/predictions.json").read_text())) == 10


def test_cached_features_are_read_again_and_mended(tuned: Path) -> None:
    predict = [*MODEL, *SHORT, *DATA, "--do_predict", "--output_dir=tuned", "--backend=pytorch", "--cache_dir=cache"]
    first = succeed(*predict, cwd=tuned)
    (file,) = (tuned / "cache").iterdir()
    written = file.stat().st_mtime_ns
    assert succeed(*predict, cwd=tuned).scores == first.scores
    assert file.stat().st_mtime_ns == written
    file.write_bytes(file.read_bytes()[:-100])
    damaged = succeed(*predict, cwd=tuned)
    assert damaged.scores == first.scores and "is damaged" in damaged.err
    assert "is damaged" not in succeed(*predict, cwd=tuned).err


def test_keep_checkpoints(workplace: Path) -> None:
    train = [*TRAIN, "--max_steps=6", "--save_checkpoints_steps=1", "--keep_checkpoints=2", "--backend=tensorflow"]
    succeed(*train, "--output_dir=out", cwd=workplace)
    assert sorted(path.name for path in (workplace / "out").glob("*.index")) == [
        "model.ckpt-5.index",
        "model.ckpt-6.index",
    ]
    assert (workplace / "out/checkpoint").read_text().splitlines() == [
        'model_checkpoint_path: "model.ckpt-6"',
        'all_model_checkpoint_paths: "model.ckpt-5"',
        'all_model_checkpoint_paths: "model.ckpt-6"',
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradient_accumulation_equals_the_large_batch(workplace: Path, backend: str) -> None:
    """8 questions per update, at once or in two parts, but for dropout (0 here) and rounding."""
    config = json.loads((workplace / "squad_model/bert_config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (workplace / "squad_model/bert_config.json").write_text(json.dumps(config))
    weights = []
    for batch, parts in ((8, 1), (4, 2)):
        sizes = [f"--train_batch_size={batch}", f"--num_accumulation_steps={parts}", f"--output_dir=out-{parts}"]
        succeed(*TRAIN, *sizes, "--learning_rate=1e-3", "--warmup_steps=0", f"--backend={backend}", cwd=workplace)
        weights.append(saved(workplace / f"out-{parts}/model.ckpt-2").tensors)
    for name, array in weights[0].items():
        assert abs(array - weights[1][name]).max() < 2e-4, name


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_real_process(tuned: Path, backend: str) -> None:
    """Exit code 0, messages on standard error only, and the last line of standard output is the scores."""
    predict = [*MODEL, *SHORT, *DATA, "--do_predict", "--output_dir=tuned", f"--backend={backend}"]
    process = start(*predict, cwd=tuned)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    (line,) = out.splitlines()
    assert set(json.loads(line)) == {"exact_match", "f1"}
    assert "predicted" in err


@pytest.mark.parametrize(("backend", "other"), [("tensorflow", "torch"), ("pytorch", "tensorflow")])
def test_one_framework_never_imports_the_other(tuned: Path, backend: str, other: str) -> None:
    """Calibrate, train, predict and save with one backend; the other framework is not among the loaded modules."""
    code = (
        "import sys, run_squad\n"
        "code = run_squad.main(sys.argv[2:])\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "sys.exit(code or (3 if sys.argv[1] in loaded else 0))\n"
    )
    work = ["--do_calib", "--do_train", "--do_predict", "--if_quant", f"--backend={backend}", "--output_dir=alone"]
    command = [sys.executable, "-c", code, other, *TRAIN, *work]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=tuned, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class TestChoiceOfBackend:
    """Without --backend; a framework is made absent by an entry None among the loaded modules."""

    PREDICT = [*MODEL, *SHORT, *DATA, "--do_predict", "--output_dir=tuned"]

    def test_both_are_there(self, tuned: Path) -> None:
        outcome = succeed(*self.PREDICT, cwd=tuned)
        assert "backend: tensorflow" in outcome.err and "not installed" not in outcome.err

    @pytest.mark.parametrize(("absent", "backend"), [("tensorflow", "pytorch"), ("torch", "tensorflow")])
    def test_one_is_there(self, tuned: Path, monkeypatch: pytest.MonkeyPatch, absent: str, backend: str) -> None:
        monkeypatch.setitem(sys.modules, absent, None)
        outcome = succeed(*self.PREDICT, cwd=tuned)
        assert f"backend: {backend}" in outcome.err
        assert ("note: tensorflow is not installed, so the backend is pytorch" in outcome.err) == (backend == "pytorch")

    def test_none_is_there(self, tuned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "tensorflow", None)
        monkeypatch.setitem(sys.modules, "torch", None)
        assert "neither tensorflow nor torch is installed" in run(*self.PREDICT, cwd=tuned).error()

    @pytest.mark.parametrize(("backend", "package"), [("tensorflow", "tensorflow"), ("pytorch", "torch")])
    def test_the_wanted_one_is_absent(
        self, tuned: Path, monkeypatch: pytest.MonkeyPatch, backend: str, package: str
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        error = run(*self.PREDICT, f"--backend={backend}", cwd=tuned).error()
        assert f"--backend={backend} needs the package {package}, not installed" in error
