"""What users of run_glue.py stumbled over: models that were lost, ranges of other weights, sets without labels."""

import json
from pathlib import Path

import pytest
from small_runs import BACKENDS, run, saved
from test_glue_runs import NEWS, START, TASK, fine_tune, glue, place  # noqa: F401

import run_glue


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_training_begins_with_is_not_removed(place: Path, backend: str) -> None:  # noqa: F811
    """It was removed before the first step, and no save was possible without it: both models were lost."""
    start = fine_tune(place, backend)
    command = [f"--backend={backend}", *TASK, "--do_train", "--max_steps=2", f"--output_dir={Path(start).parent}"]
    command += [f"--init_checkpoint={start}", "--overwrite_output_dir"]
    outcome = run(*command, cwd=place, script=run_glue)
    assert outcome.code == 2 and f"--init_checkpoint {start} would be lost" in outcome.err
    assert saved(place / start).tensors


@pytest.mark.parametrize("backend", BACKENDS)
def test_ranges_of_the_weights_before_a_training_in_float_are_not_saved_after_it(
    place: Path,  # noqa: F811
    backend: str,
    tmp_path: Path,
) -> None:
    """A later --if_quant clipped the new weights by them without a word."""
    common = [f"--backend={backend}", *TASK]
    output = tmp_path / "out"
    command = [*common, "--do_calib", "--calib_batch=1", "--do_train", "--max_steps=2", f"--output_dir={output}"]
    outcome = glue(*command, cwd=place)
    assert "the trained model is saved without them" in outcome.err
    assert saved(output / "model.ckpt-calibrated").ranges and not saved(output / "model.ckpt-2").ranges
    later = [*common, f"--init_checkpoint={output}/model.ckpt-2", "--do_eval", "--if_quant", "--quant_mode=ft2"]
    outcome = run(*later, f"--output_dir={tmp_path}/later", cwd=place, script=run_glue)
    assert outcome.code == 2 and "calibrat" in outcome.err


def test_dynamic_quantization_predicts_a_set_without_labels(place: Path, tmp_path: Path) -> None:  # noqa: F811
    """As all test sets of GLUE are; its fp32 model found no folder to be saved in."""
    start = fine_tune(place, "pytorch")
    command = [*TASK, f"--init_checkpoint={start}", "--backend=pytorch", "--quant_scheme=dynamic", "--do_predict"]
    outcome = glue(*command, f"--output_dir={tmp_path}", cwd=place)
    report = json.loads((tmp_path / "dynamic.json").read_text())
    assert report["sizes"]["float_bytes"] > report["sizes"]["int8_bytes"] and report["flips"] == {}
    assert (tmp_path / "predict_results_mrpc.txt").is_file() and "| int8 dynamic |" in outcome.out


def test_a_regression_is_compared_by_its_values(place: Path, tmp_path: Path) -> None:  # noqa: F811
    """Floats were compared with ==, as classes are: all differed, with a p of 1."""
    data = ["--train_file=values/train.csv", "--validation_file=values/dev.csv", *START, "--backend=pytorch"]
    glue(*data, "--do_train", "--max_steps=2", f"--output_dir={tmp_path}/fp32", cwd=place)
    start = f"--init_checkpoint={tmp_path}/fp32/model.ckpt-2"
    command = [*data, start, "--do_eval", "--quant_scheme=dynamic", f"--output_dir={tmp_path}/int8"]
    outcome = glue(*command, cwd=place)
    assert "McNemar" not in outcome.err and "labels agree" not in outcome.out
    found = json.loads((tmp_path / "int8" / "flips.json").read_text())["sets"]["dev"]
    values = [
        json.loads((tmp_path / "int8" / name / "predictions_dev.json").read_text())["predictions"]
        for name in ("fp32", ".")
    ]
    differences = [abs(first - second) for first, second in zip(*values, strict=True)]
    assert found["examples"] == 20 and found["largest_difference"] == pytest.approx(max(differences))
    assert found["mean_difference"] == pytest.approx(sum(differences) / 20) and abs(found["pearson"]) <= 1


def test_rows_of_one_class_are_evaluated_by_the_checkpoints_classes(place: Path, tmp_path: Path) -> None:  # noqa: F811
    glue(*NEWS, "--backend=pytorch", "--do_train", "--max_steps=2", f"--output_dir={tmp_path}/fp32", cwd=place)
    (tmp_path / "one.csv").write_text("text,label\nwater under the bridge,trade\n")
    start = ["--max_seq_length=32", f"--init_checkpoint={tmp_path}/fp32/model.ckpt-2", "--backend=pytorch"]
    command = [f"--validation_file={tmp_path}/one.csv", *start, "--do_eval", f"--output_dir={tmp_path}/out"]
    assert glue(*command, cwd=place)
    assert json.loads((tmp_path / "out" / "predictions_dev.json").read_text())["labels"] == [2]
    (tmp_path / "one.csv").write_text("text,label\nwater under the bridge,weather\n")
    outcome = run(*command, cwd=place, script=run_glue)
    assert outcome.code == 2 and "'weather'" in outcome.err


def test_a_card_tells_the_scores_of_its_file_and_a_summary_gets_its_folder(place: Path, tmp_path: Path) -> None:  # noqa: F811
    summary = tmp_path / "new" / "scores.json"
    command = [*NEWS, "--backend=pytorch", "--do_train", "--do_eval", "--do_predict", "--max_steps=2"]
    outcome = glue(*command, f"--output_dir={tmp_path}/out", f"--json_summary={summary}", cwd=place)
    scores = json.loads(summary.read_text())
    assert json.loads(outcome.out.splitlines()[-1]) == scores and {"acc", "acc_test"} <= set(scores)
    card = (tmp_path / "out" / "model.ckpt-2" / "README.md").read_text()
    assert "dev.csv" in card and "acc_test" not in card and f"{scores['acc']:.4f}" in card


def test_a_run_on_grouped_rows_is_another_run(place: Path, tmp_path: Path) -> None:  # noqa: F811
    command = [*TASK, "--backend=pytorch", "--do_train", "--max_steps=2"]
    outputs = [f"--output_dir={tmp_path / name}" for name in ("drawn", "grouped")]
    glue(*command, outputs[0], cwd=place)
    outcome = run(*command, outputs[0], "--group_by_length", cwd=place, script=run_glue)
    assert outcome.code == 2 and "another run (group_by_length: False there, True here)" in outcome.err
    glue(*command, outputs[1], "--train_sampling_strategy=group_by_length", cwd=place)
    drawn, grouped = (saved(tmp_path / name / "model.ckpt-2").tensors for name in ("drawn", "grouped"))
    assert any((drawn[name] != tensor).any() for name, tensor in grouped.items())


def of_three_classes(place: Path, backend: str) -> str:  # noqa: F811
    """The checkpoint of a model for the news' classes, made once per backend."""
    if not (place / f"news_{backend}").exists():
        train = [*NEWS, f"--backend={backend}", "--do_train", "--max_steps=2", f"--output_dir=news_{backend}"]
        glue(*train, cwd=place)
    return f"news_{backend}/model.ckpt-2"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_head_for_other_classes_is_named_and_replaced_where_asked(
    place: Path,  # noqa: F811
    backend: str,
    tmp_path: Path,
) -> None:
    """MRPC from an MNLI model, as GLUE's small tasks are often begun: only shapes of tensors were told."""
    start = f"--init_checkpoint={of_three_classes(place, backend)}"
    command = [*TASK[:2], "--max_seq_length=32", "--train_batch_size=4", start, f"--backend={backend}"]
    command += [f"--output_dir={tmp_path}/out"]
    told = (
        f"the head of {of_three_classes(place, backend)} is for 3 classes (arts, sport, trade), the data has 2 classes"
    )
    for phases in (["--do_train"], ["--do_eval"], ["--do_eval", "--ignore_mismatched_sizes"]):
        outcome = run(*command, *phases, cwd=place, script=run_glue)
        assert outcome.code == 2 and f"{told}; training and calibration can begin with a new head" in outcome.err
    train = ["--do_train", "--ignore_mismatched_sizes", "--learning_rate=1e-30", "--max_steps=1", "--do_eval"]
    quantize = ["--do_calib", "--calib_batch=1", "--if_quant", "--quant_mode=ft1"]
    outcome = glue(*command, *train, *quantize, cwd=place)
    assert f"{told}: a new head takes its place" in outcome.err and "was trained for other classes" in outcome.err
    before = saved(place / of_three_classes(place, backend)).tensors
    after = saved(tmp_path / "out/model.ckpt-1").tensors
    assert before.keys() == after.keys() and after["output_weights"].shape[0] == 2
    for name in before.keys() - {"output_weights", "output_bias"}:
        assert (before[name] == after[name]).all(), name
    # It goes on from there, and is read back, without a word of the old head.
    outcome = glue(*command, *train[:4], "--do_eval", *quantize, cwd=place)
    assert "a new head" not in outcome.err


def test_a_regression_s_model_becomes_a_classifier(place: Path, tmp_path: Path) -> None:  # noqa: F811
    data = ["--train_file=values/train.csv", *START, "--backend=pytorch", "--do_train", "--max_steps=1"]
    glue(*data, f"--output_dir={tmp_path}/values", cwd=place)
    start = f"--init_checkpoint={tmp_path}/values/model.ckpt-1"
    command = [*TASK[:2], "--max_seq_length=32", start, "--do_train", "--max_steps=1", "--ignore_mismatched_sizes"]
    outcome = glue(*command, "--backend=pytorch", f"--output_dir={tmp_path}/mrpc", cwd=place)
    assert "is for values (a regression), the data has 2 classes" in outcome.err
    configs = [
        json.loads((tmp_path / name / "config.json").read_text())
        for name in ("values/model.ckpt-1", "mrpc/model.ckpt-1")
    ]
    assert [config.get("problem_type") for config in configs] == ["regression", None]


def test_calibration_alone_begins_with_a_new_head(place: Path, tmp_path: Path) -> None:  # noqa: F811
    """For training in a command of its own; nothing is scored with a head that was never trained."""
    start = [
        f"--init_checkpoint={of_three_classes(place, 'pytorch')}",
        "--ignore_mismatched_sizes",
        "--backend=pytorch",
    ]
    command = [*TASK[:2], "--max_seq_length=32", "--train_batch_size=4", *start, "--quant_mode=ft2", "--do_calib"]
    outcome = run(*command, "--calib_batch=1", f"--output_dir={tmp_path}/no", "--do_eval", cwd=place, script=run_glue)
    assert outcome.code == 2 and "is for 3 classes" in outcome.err
    glue(*command, "--calib_batch=1", f"--output_dir={tmp_path}/ranges", cwd=place)
    train = [f"--init_checkpoint={tmp_path}/ranges/model.ckpt-calibrated", "--do_train", "--if_quant", "--max_steps=2"]
    common = [*TASK[:2], "--max_seq_length=32", "--backend=pytorch", "--train_batch_size=4", "--do_eval"]
    assert glue(*common, *train, f"--output_dir={tmp_path}/out", cwd=place).scores


def test_an_untrained_head_is_not_scored_after_a_calibration(place: Path, tmp_path: Path) -> None:  # noqa: F811
    command = [*TASK, "--backend=pytorch", "--do_calib", "--calib_batch=1", "--quant_mode=ft2", "--do_eval"]
    outcome = run(*command, f"--output_dir={tmp_path}", cwd=place, script=run_glue)
    assert outcome.code == 2 and "the task's head was never trained" in outcome.err


def test_several_seeds_and_q8bert_begin_with_new_heads(place: Path, tmp_path: Path) -> None:  # noqa: F811
    start = [
        f"--init_checkpoint={of_three_classes(place, 'pytorch')}",
        "--ignore_mismatched_sizes",
        "--backend=pytorch",
    ]
    command = [*TASK[:2], "--max_seq_length=32", *start, "--do_train", "--do_eval", "--max_steps=2", "--num_runs=2"]
    outcome = glue(*command, "--quant_scheme=q8bert", f"--output_dir={tmp_path}/out", cwd=place)
    assert outcome.err.count("a new head takes its place") == 2
    found = [saved(tmp_path / f"out/seed-{seed}/model.ckpt-2").tensors["output_weights"] for seed in (42, 43)]
    assert found[0].shape[0] == 2 and (found[0] != found[1]).any()


def test_a_teacher_must_have_the_data_s_classes(place: Path, tmp_path: Path) -> None:  # noqa: F811
    teacher = of_three_classes(place, "pytorch")
    teach = ["--distillation", f"--teacher={teacher}", "--ignore_mismatched_sizes"]
    command = [*TASK, "--backend=pytorch", "--do_train", "--max_steps=2", *teach, f"--output_dir={tmp_path}/out"]
    outcome = run(*command, cwd=place, script=run_glue)
    told = f"the head of {teacher} is for 3 classes (arts, sport, trade), the data has 2 classes"
    assert outcome.code == 2 and outcome.err.splitlines()[-1].endswith(f"{told}: a teacher must have the data's")


def test_an_idle_flag_ends_no_run(place: Path, tmp_path: Path) -> None:  # noqa: F811
    start = f"--init_checkpoint={fine_tune(place, 'pytorch')}"
    command = [*TASK[:2], "--max_seq_length=32", start, "--do_predict", "--eval_all_checkpoints", "--backend=pytorch"]
    outcome = glue(*command, f"--output_dir={tmp_path}", cwd=place)
    assert "--eval_all_checkpoints has no effect without --do_eval" in outcome.err
    assert (tmp_path / "predict_results_mrpc.txt").is_file()


def test_a_folder_without_checkpoints_is_told_before_anything_is_predicted(place: Path, tmp_path: Path) -> None:  # noqa: F811
    start = f"--init_checkpoint={fine_tune(place, 'pytorch')}"
    command = [*TASK[:2], "--max_seq_length=32", start, "--do_eval", "--eval_all_checkpoints", "--backend=pytorch"]
    outcome = run(*command, f"--output_dir={tmp_path}", cwd=place, script=run_glue)
    assert outcome.code == 2 and f"--eval_all_checkpoints: {tmp_path} holds no model.ckpt-<step>" in outcome.err
    assert not list(tmp_path.glob("*eval*")) and not list(tmp_path.glob("predictions*"))


def test_grouping_of_too_few_batches_is_told(place: Path, tmp_path: Path) -> None:  # noqa: F811
    command = [*TASK[:2], *START, "--backend=pytorch", "--do_train", "--max_steps=1", "--group_by_length"]
    for batch, told in ((3, False), (4, True)):  # of 24 rows
        command_now = [*command, f"--train_batch_size={batch}", f"--output_dir={tmp_path}/{batch}"]
        outcome = glue(*command_now, cwd=place)
        assert ("groups nothing: an epoch has 6 whole batches of 4 rows, fewer than 8" in outcome.err) == told


def test_settings_of_a_distillation_that_a_regression_has_not(place: Path, tmp_path: Path) -> None:  # noqa: F811
    train = ["--train_file=values/train.csv", *START, "--backend=pytorch", "--do_train", "--max_steps=1"]
    glue(*train, f"--output_dir={tmp_path}/teacher", cwd=place)
    command = [*train, "--distillation", f"--teacher={tmp_path}/teacher/model.ckpt-1", f"--output_dir={tmp_path}/out"]
    outcome = glue(*command, "--distillation_loss=pytorch", cwd=place)
    assert "warning: --distillation_loss has no effect in a regression" in outcome.err
