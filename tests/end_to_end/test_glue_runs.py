"""run_glue.py from the command line to the files it leaves, on tiny models: GLUE's layout, own data, every phase."""

import json
from pathlib import Path

import numpy as np
import pytest
from small_runs import BACKENDS, Outcome, checkpoint_files, run, saved, succeed, write_google_folder

import run_glue
from checkpoints.q8bert_file import FILE_NAME, read_q8bert

WORDS = "water river bridge stone engine museum village market winter garden letter music island forest".split()
MRPC_HEADER = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"


def glue(*arguments: str, cwd: Path) -> Outcome:
    return succeed(*arguments, cwd=cwd, script=run_glue)


def sentence(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(WORDS, int(rng.integers(3, 9))))


def write_mrpc(folder: Path, train: int = 24, dev: int = 10, test: int = 6) -> None:
    """MRPC's files with pairs of sentences; equal ones are paraphrases."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", train), ("dev", dev), ("test", test)):
        lines = [MRPC_HEADER if name != "test" else "index\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        for row in range(count):
            first = sentence(rng)
            second = first if row % 2 else sentence(rng)
            lines.append(f"{row if name == 'test' else row % 2}\t{row}\t{row + 100}\t{first}\t{second}")
        (folder / f"{name}.tsv").write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")


def write_own_data(folder: Path, labels: list[str], rows: int = 20) -> None:
    rng = np.random.default_rng(1)
    for name in ("train", "dev", "test"):
        lines = ["text,label", *(f'"{sentence(rng)}",{labels[row % len(labels)]}' for row in range(rows))]
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with bert/ (pre-trained, tiny), MRPC/ and own data of three classes and of values."""
    folder = tmp_path_factory.mktemp("glue")
    write_google_folder(folder / "bert", positions=64)
    write_mrpc(folder / "MRPC")
    for name, labels in (("news", ["sport", "arts", "trade"]), ("values", ["0.5", "2.25", "3.0"])):
        (folder / name).mkdir()
        write_own_data(folder / name, labels)
    return folder


START = "--init_checkpoint=bert/bert_model.ckpt --max_seq_length=32 --train_batch_size=8 --learning_rate=1e-3".split()
TASK = ["--task_name=MRPC", "--data_dir=MRPC", *START]
NEWS = ["--train_file=news/train.csv", "--validation_file=news/dev.csv", "--test_file=news/test.csv", *START]


def fine_tune(place: Path, backend: str) -> str:
    """The checkpoint of a fine-tuned model, made once per backend."""
    output = f"finetuned_{backend}"
    if not (place / output).exists():
        glue(
            f"--backend={backend}",
            *TASK,
            "--do_train",
            "--do_eval",
            "--max_steps=4",
            f"--output_dir={output}",
            cwd=place,
        )
    return f"{output}/model.ckpt-4"


@pytest.mark.parametrize("backend", BACKENDS)
def test_fine_tuning_leaves_scores_and_a_model(place: Path, backend: str) -> None:
    checkpoint = fine_tune(place, backend)
    output = place / Path(checkpoint).parent
    scores = json.loads((output / "eval_results.json").read_text())
    assert set(scores) == {"acc", "f1", "acc_and_f1"}
    assert (output / "eval_results.txt").read_text().splitlines() == [f"{k} = {v}" for k, v in sorted(scores.items())]
    model = saved(place / checkpoint)
    assert model.tensors["output_weights"].shape == (2, 32) and model.label_names == ["0", "1"]
    assert all((output / name).exists() for name in checkpoint_files("model.ckpt-4", backend))
    found = json.loads((output / "predictions_dev.json").read_text())
    assert scores["acc"] == np.mean(np.array(found["predictions"]) == found["labels"])


def test_both_backends_predict_the_same(place: Path) -> None:
    """One checkpoint, written by one backend: equal predictions on both, in fp32 and in every mode."""
    checkpoint = fine_tune(place, "tensorflow")
    fp32 = 0.0
    for mode in ("fp32", "ft1", "ft2", "ft3", "trt", "ort"):
        quantized = [] if mode == "fp32" else ["--do_calib", "--if_quant", f"--quant_mode={mode}", "--calib_batch=2"]
        results = []
        for backend in BACKENDS:
            output = f"same_{mode}_{backend}"
            flags = ["--do_eval", *quantized, f"--output_dir={output}"]
            outcome = glue(f"--backend={backend}", *TASK, f"--init_checkpoint={checkpoint}", *flags, cwd=place)
            assert (f"the same weights in fp32: acc {fp32:.4f}, " in outcome.err) == bool(quantized)
            assert (f"; quantized, mode {mode}: acc " in outcome.err) == bool(quantized)
            results.append(json.loads((place / output / "predictions_dev.json").read_text()))
            assert (place / output / "flips.json").exists() == bool(quantized)
            scored = place / output / ("fp32/eval_results.json" if quantized else "eval_results.json")
            fp32 = fp32 or json.loads(scored.read_text())["acc"]
            assert json.loads(scored.read_text())["acc"] == fp32
        assert results[0] == results[1], mode


@pytest.mark.parametrize("backend", BACKENDS)
def test_calibration_then_training_with_a_teacher(place: Path, backend: str) -> None:
    checkpoint, output = fine_tune(place, backend), f"kd_{backend}"
    glue(
        f"--backend={backend}", *TASK, f"--init_checkpoint={checkpoint}", "--do_calib", "--calib_batch=2", "--do_train",
        "--do_eval", "--if_quant", "--quant_mode=ft2", "--max_steps=4", "--distillation", f"--teacher={checkpoint}",
        "--distillation_loss_scale=10", f"--output_dir={output}", cwd=place,
    )  # fmt: skip
    flips = json.loads((place / output / "flips.json").read_text())
    assert flips["parent"] == checkpoint and flips["sets"]["dev"]["examples"] == 10
    assert 0.0 <= flips["sets"]["dev"]["p_value"] <= 1.0
    assert saved(place / output / "model.ckpt-4").ranges


@pytest.mark.parametrize("backend", BACKENDS)
def test_evaluation_while_training_and_the_best_model(place: Path, backend: str) -> None:
    output = f"best_{backend}"
    outcome = glue(
        f"--backend={backend}", *NEWS, "--do_train", "--do_eval", "--do_predict", "--max_steps=6", "--eval_steps=2",
        "--evaluate_during_training", "--load_best_model_at_end", "--save_steps=2", "--eval_all_checkpoints",
        f"--output_dir={output}", cwd=place,
    )  # fmt: skip
    folder = place / output
    evaluations = json.loads((folder / "evaluations.json").read_text())
    assert [entry["step"] for entry in evaluations] == [2, 4, 6]
    best = max(evaluations, key=lambda entry: entry["score"])
    scores = json.loads(outcome.out.splitlines()[-1])
    assert scores["acc"] == best["scores"]["acc"] and {"acc_2", "acc_4", "acc_6", "acc_test", "f1_macro"} <= set(scores)
    assert scores["acc_4"] == evaluations[1]["scores"]["acc"]
    assert not [name for entry in evaluations for name in entry["scores"] if name.endswith("_test")]
    assert saved(folder / "model.ckpt-best").label_names == ["arts", "sport", "trade"]
    predicted = (folder / "predict_results_text_classification.txt").read_text().splitlines()
    assert len(predicted) == 21 and predicted[1].split("\t")[1] in ("arts", "sport", "trade")
    assert "precision" in (folder / "classification_report.txt").read_text()


@pytest.mark.parametrize("backend", BACKENDS)
def test_regression(place: Path, backend: str) -> None:
    data = ["--train_file=values/train.csv", "--validation_file=values/dev.csv", *START]
    output = f"values_{backend}"
    flags = ["--do_train", "--do_eval", "--max_steps=4", f"--output_dir={output}"]
    outcome = glue(f"--backend={backend}", *data, *flags, cwd=place)
    assert set(json.loads(outcome.out.splitlines()[-1])) == {"mse", "pearson", "spearmanr", "corr"}
    assert saved(place / output / "model.ckpt-4").tensors["output_bias"].shape == (1,)


def test_a_run_again_ends_with_the_same_scores_and_no_step(place: Path) -> None:
    fine_tune(place, "pytorch")
    flags = ["--do_train", "--do_eval", "--max_steps=4", "--output_dir=finetuned_pytorch"]
    before = (place / "finetuned_pytorch/eval_results.json").read_text()
    outcome = glue("--backend=pytorch", *TASK, *flags, cwd=place)
    assert "training is complete" in outcome.err and "loss" not in outcome.err
    assert (place / "finetuned_pytorch/eval_results.json").read_text() == before


def test_several_runs(place: Path) -> None:
    flags = ["--do_train", "--do_eval", "--max_steps=2", "--num_runs=3", "--seed=5", "--output_dir=several"]
    outcome = glue("--backend=pytorch", *TASK, *flags, cwd=place)
    runs = json.loads((place / "several/runs.json").read_text())
    assert [entry["seed"] for entry in runs["runs"]] == [5, 6, 7]
    values = [entry["scores"]["acc"] for entry in runs["runs"]]
    assert runs["summary"]["acc"] == {"mean": np.mean(values), "standard_deviation": np.std(values, ddof=1)}
    assert json.loads(outcome.out.splitlines()[-1]) == runs["summary"]
    weights = [saved(place / f"several/seed-{seed}/model.ckpt-2").tensors["output_weights"] for seed in (5, 6)]
    assert not np.array_equal(*weights)


@pytest.mark.parametrize("flags", [[], ["--per_row"], ["--dynamic_per_channel"]], ids=["batch", "row", "channel"])
def test_dynamic_quantization(place: Path, flags: list[str]) -> None:
    checkpoint, output = fine_tune(place, "tensorflow"), f"dynamic{'_'.join(flags)}"
    outcome = glue(
        "--backend=pytorch", *TASK, f"--init_checkpoint={checkpoint}", "--do_eval", "--quant_scheme=dynamic", *flags,
        "--quantized_engine=fbgemm", f"--output_dir={output}", cwd=place,
    )  # fmt: skip
    assert "| model | size MB | acc_and_f1 |" in outcome.out and "labels agree with fp32" in outcome.out
    report = json.loads((place / output / "dynamic.json").read_text())
    assert report["sizes"]["int8_bytes"] < report["sizes"]["float_bytes"]
    assert report["sizes"]["bytes_by_dtype"]["int8"] > 0
    assert report["int8"] == json.loads((place / output / "eval_results.json").read_text())
    assert (place / output / "int8/model_int8.safetensors").exists()


@pytest.mark.parametrize("role", ["evaluated", "teacher"])
def test_classes_in_another_order_are_refused(place: Path, role: str) -> None:
    glue("--backend=pytorch", *NEWS, "--do_train", "--max_steps=1", "--output_dir=order", cwd=place)
    (place / "classes.txt").write_text("trade\nsport\narts\n")
    evaluate = ["--do_eval", "--init_checkpoint=order/model.ckpt-1"]
    learn = ["--do_train", "--max_steps=1", "--distillation", "--teacher=order/model.ckpt-1"]
    flags = ["--class_file=classes.txt", "--output_dir=order2", *(learn if role == "teacher" else evaluate)]
    outcome = run("--backend=pytorch", *NEWS, *flags, cwd=place, script=run_glue)
    assert "order/model.ckpt-1 was trained for the classes arts, sport, trade in this order" in outcome.error()


def test_a_model_without_a_trained_head_is_not_evaluated(place: Path) -> None:
    outcome = run("--backend=pytorch", *TASK, "--do_eval", "--output_dir=headless", cwd=place, script=run_glue)
    assert "has no output_weights, output_bias: the task's head was never trained" in outcome.error()


@pytest.mark.parametrize("backend", BACKENDS)
def test_q8bert_is_trained_saved_and_evaluated_from_its_int8_file(place: Path, backend: str) -> None:
    """Ranges are found while training; the int8 file alone gives the predictions of the fp32 checkpoint."""
    scheme, output = ["--quant_scheme=q8bert", "--ema_decay=0.5"], f"q8bert_{backend}"
    flags = ["--do_train", "--do_eval", "--max_steps=4", "--save_steps=2", f"--output_dir={output}"]
    glue(f"--backend={backend}", *TASK, *scheme, *flags, cwd=place)
    predicted = json.loads((place / output / "predictions_dev.json").read_text())
    assert saved(place / output / "model.ckpt-4").ranges
    again = [f"--init_checkpoint={output}", "--load_quantized_model", "--do_eval", f"--output_dir={output}_int8"]
    files = ["--vocab_file=bert/vocab.txt", "--bert_config_file=bert/bert_config.json"]
    glue(f"--backend={backend}", *TASK, *scheme, *files, *again, cwd=place)
    assert json.loads((place / f"{output}_int8/predictions_dev.json").read_text()) == predicted


def test_the_int8_file_holds_the_best_model_with_its_own_ranges(place: Path) -> None:
    """Not the best weights with the last step's ranges: both are those of model.ckpt-best."""
    flags = ["--do_train", "--do_eval", "--max_steps=4", "--evaluate_during_training", "--eval_steps=1"]
    flags += ["--load_best_model_at_end", "--quant_scheme=q8bert", "--ema_decay=0.5", "--output_dir=q8bert_best"]
    glue("--backend=pytorch", *TASK, *flags, cwd=place)
    best, int8 = saved(place / "q8bert_best/model.ckpt-best"), read_q8bert(place / "q8bert_best" / FILE_NAME)
    evaluations = json.loads((place / "q8bert_best/evaluations.json").read_text())
    assert max(evaluations, key=lambda entry: entry["score"])["step"] < 4, "the best must not be the last"
    for scope, amax in best.ranges.items():
        np.testing.assert_allclose(int8.ranges[scope], amax, rtol=1e-6, err_msg=scope)


def test_ranges_of_a_calibration_are_not_taken_into_q8bert(place: Path) -> None:
    checkpoint = fine_tune(place, "pytorch")
    start = ["--backend=pytorch", *TASK]
    calibrate = [f"--init_checkpoint={checkpoint}", "--do_calib", "--calib_batch=2", "--output_dir=calibrated"]
    glue(*start, *calibrate, cwd=place)
    flags = ["--init_checkpoint=calibrated/model.ckpt-calibrated", "--quant_scheme=q8bert", "--do_train"]
    glue(*start, *flags, "--max_steps=2", "--output_dir=q8bert_from_calibrated", cwd=place)
    found = saved(place / "q8bert_from_calibrated/model.ckpt-2").ranges
    assert found and not any("aftergemm" in scope for scope in found)
