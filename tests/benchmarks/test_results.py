"""Measured results: their commands, their files, and README's table, which is what the files give."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks import compare_results, glue_results, results_table
from benchmarks.commands import ROOT, Command
from benchmarks.result_files import COMPARE, GLUE, SQUAD, read_results, write_results
from export.compare.flags import parse_compare_flags
from twinquant.errors import UserError
from twinquant.files import write_json_atomically
from twinquant.flags import parse_flags
from twinquant.glue_flags import ALL_FLAGS
from twinquant.machine import describe_machine
from twinquant.main import run_main
from twinquant.squad_flags import ALL_FLAGS as SQUAD_FLAGS

SCORES = {42: {"acc": 0.75, "f1": 0.5}, 43: {"acc": 0.85, "f1": 0.7}}


def arguments(folder: Path, *more: str) -> Namespace:
    flags = [f"--model={folder / 'bert'}", f"--data_dir={folder / 'glue'}", f"--output_dir={folder / 'out'}"]
    return glue_results.parse([*flags, *more])


def finished(folder: Path, stage: str, seed: int, predictions: list[int]) -> Command:
    """What a finished run of MRPC leaves."""
    command = Command(stage, "pytorch", "", folder / "mrpc" / f"{stage}_pytorch" / f"seed-{seed}", "run_glue.py")
    command.folder.mkdir(parents=True)
    write_json_atomically(command.folder / "seconds.json", {"seconds": 10.0, "words": command.words})
    write_json_atomically(command.folder / "eval_results.json", SCORES[seed])
    write_json_atomically(command.folder / "predictions_dev.json", {"labels": None, "predictions": predictions})
    return command


@pytest.mark.parametrize("stage", glue_results.STAGES)
def test_commands_have_flags_that_run_glue_knows(stage: str, tmp_path: Path) -> None:
    start = tmp_path / "out" / "mrpc" / "fp32_pytorch" / "seed-42"
    (start / "model.ckpt-7").mkdir(parents=True)
    (start / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"\n')
    given = arguments(tmp_path, "--train_examples=64", "--num_train_epochs=2", "--max_seq_length=32")
    words = glue_results.make_command("mrpc", "pytorch", stage, 42, given).words
    values = parse_flags(ALL_FLAGS, words[1:], "run_glue.py", "").values
    assert (values["task_name"], values["max_train_samples"], values["max_seq_length"]) == ("MRPC", 64, 32)
    fine_tuned = glue_results.STAGES[stage].fine_tuned
    assert values["init_checkpoint"] == str(start / "model.ckpt-7" if fine_tuned else tmp_path / "bert")
    assert values["teacher"] == (values["init_checkpoint"] if stage.startswith("qat-kd") else None)


@pytest.mark.parametrize(
    ("stage", "rate", "epochs"),
    [("fp32", 1e-4, 3.0), ("q8bert", 1e-4, 3.0), ("tuned-q8bert", 2e-5, 0.5), ("fp32-trained", 2e-5, 0.5)],
)
def test_what_starts_from_the_fine_tuned_model_trains_further(
    stage: str, rate: float, epochs: float, tmp_path: Path
) -> None:
    (tmp_path / "out" / "mrpc" / "fp32_pytorch" / "seed-42" / "model.ckpt-7").mkdir(parents=True)
    (tmp_path / "out" / "mrpc" / "fp32_pytorch" / "seed-42" / "checkpoint").write_text(
        'model_checkpoint_path: "model.ckpt-7"\n'
    )
    flags = ["--learning_rate=1e-4", "--further_learning_rate=2e-5", "--further_epochs=0.5"]
    for more in ([], ["--group_by_length"]):
        words = glue_results.make_command("mrpc", "pytorch", stage, 42, arguments(tmp_path, *flags, *more)).words
        values = parse_flags(ALL_FLAGS, words[1:], "run_glue.py", "").values
        assert (values["learning_rate"], values["num_train_epochs"]) == (rate, epochs)
        assert values["group_by_length"] == bool(more)


@pytest.mark.parametrize("flag", ["--further_epochs=0", "--further_learning_rate=-1"])
def test_training_further_for_nothing_is_refused(flag: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a number above 0"):
        arguments(tmp_path, flag)


def test_a_stage_without_its_fine_tuned_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dynamic starts from the stage fp32, of which .*seed-42 holds no checkpoint"):
        glue_results.make_command("mrpc", "pytorch", "dynamic", 42, arguments(tmp_path))


def test_a_row_has_mean_deviation_and_agreement(tmp_path: Path) -> None:
    for seed in SCORES:
        finished(tmp_path, "fp32", seed, [0, 1, 1, 0])
    commands = [finished(tmp_path, "ft2-mse", seed, [0, 1, 1, seed - 42]) for seed in SCORES]
    row = glue_results.row("ft2-mse", "pytorch", commands)
    assert row["seeds"] == [42, 43] and row["same_as_fp32"] == [100.0, 75.0]
    assert row["summary"]["acc"] == pytest.approx({"mean": 0.8, "standard_deviation": 0.0707107}, abs=1e-6)
    assert glue_results.score_cell(row["summary"]["acc"], 2) == "80.00 ± 7.07"


def test_a_finished_command_with_other_flags_is_refused(tmp_path: Path) -> None:
    command = finished(tmp_path, "fp32", 42, [0])
    assert command.done
    command.flags = "--num_train_epochs=9"
    with pytest.raises(UserError, match="results of another command line .*--num_train_epochs=9"):
        _ = command.done


@pytest.mark.parametrize("keep", [pytest.param(True, id="fp32"), pytest.param(False, id="other-stages")])
def test_models_are_removed_when_they_are_scored(keep: bool, tmp_path: Path) -> None:
    (tmp_path / "model.ckpt-7").mkdir()
    for name in ("model.ckpt-7.training_state.safetensors", "quantized_model.safetensors", "eval_results.json"):
        (tmp_path / name).write_text("{}")
    glue_results.remove_models(tmp_path, keep)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == ({"model.ckpt-7", "eval_results.json"} if keep else {"eval_results.json"})


def test_files_name_command_machine_and_versions(tmp_path: Path) -> None:
    path = tmp_path / "glue_mrpc.json"
    rows = [
        {
            "stage": "fp32",
            "backend": "pytorch",
            "seeds": [42],
            "summary": {"f1": glue_results.summarize([{"f1": 1}])["f1"]},
        }
    ]
    flags = {"model": "/somewhere/bert", "tasks": ["mrpc"], "threads": None, "on": True, "off": False, "zero": 0}
    write_results(path, GLUE, flags, rows)
    results = read_results(path)
    assert results["command"] == "python -m benchmarks.glue_results --model bert --tasks mrpc --on --zero 0"
    assert results["machine"]["cores"] >= 1 and results["machine"]["versions"]["numpy"]
    assert "| fp32 | PyTorch | 100.00 |" in results_table.tables([path])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        pytest.param("[1]", "holds no results", id="list"),
        pytest.param('{"rows": []}', "holds no results", id="no-rows"),
        pytest.param("{", "is not JSON", id="cut-off"),
    ],
)
def test_other_files_are_refused(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "squad.json").write_text(content)
    with pytest.raises(UserError, match=f"squad.json {sentence}"):
        read_results(tmp_path / "squad.json")


@pytest.mark.parametrize(
    ("page", "begin", "end", "table"),
    [
        pytest.param("README.md", results_table.BEGIN, results_table.END, results_table.readme_tables, id="readme"),
        pytest.param(
            "docs/results.md", results_table.BEGIN, results_table.END, results_table.other_tables, id="results"
        ),
        pytest.param(
            "docs/choosing_a_mode.md",
            results_table.CHOICE_BEGIN,
            results_table.CHOICE_END,
            results_table.choice_table,
            id="choosing",
        ),
        pytest.param(
            "docs/export_compare.md",
            results_table.BEGIN,
            results_table.END,
            compare_results.compare_tables,
            id="compare",
        ),
    ],
)
def test_pages_show_the_committed_results(page: str, begin: str, end: str, table) -> None:
    """`python -m benchmarks.results_table` makes it so."""
    shown = (ROOT / page).read_text(encoding="utf-8").partition(begin)[2].partition(end)[0]
    assert shown.strip() == table(sorted(results_table.FOLDER.glob("*.json")))


def test_losses_are_against_the_float_model_of_the_same_backend_and_training() -> None:
    scores = {"fp32": (90.0, 80.0), "ft1-mse": (89.0, 79.5), "fp32-trained": (88.0, 81.0), "qat-ft2": (87.0, 81.5)}
    rows = [
        {"stage": stage, "backend": backend, "f1": f1}
        for stage, pair in scores.items()
        for backend, f1 in zip(("pytorch", "tensorflow"), pair, strict=True)
    ]
    found = results_table.losses(Path("squad.json"), {"kind": "squad", "rows": rows})
    assert found == pytest.approx({"ft1-mse": 0.75, "qat-ft2": 0.25})


def test_results_that_stand_behind_readme_are_small() -> None:
    for path in results_table.FOLDER.glob("*.json"):
        assert path.stat().st_size < 100_000 and json.loads(path.read_text())["machine"]["cpu"], path


def test_table_is_written_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("before\n<b>\nold\n<e>\nafter\n")
    results_table.write_between(page, "<b>", "| new |", "<e>")
    assert page.read_text() == "before\n<b>\n| new |\n<e>\nafter\n"
    with pytest.raises(UserError, match="lacks the marks"):
        results_table.write_between(page, "<b>", "", "<end>")


def test_measuring_keeps_what_was_measured_under_its_name(tmp_path: Path, monkeypatch) -> None:
    """The data sets that are there; the commands themselves are not run here."""
    data, called = tmp_path / "data", []
    for name in ("squad", "models/minilm-squad", "glue/MRPC"):
        (data / name).mkdir(parents=True)
    for name in ("train-v1.1.part.json", "xquad.en.json"):
        (data / "squad" / name).write_text("{}")
    row = {"stage": "fp32", "backend": "pytorch", "exact_match": 1.0, "f1": 2.0}
    summary = {"f1": {"mean": 0.5, "standard_deviation": 0.0}}

    def squad(argv: list[str]) -> None:
        called.append(argv)
        write_results(Path(argv[3].partition("=")[2]) / "squad.json", SQUAD, {}, [row])

    def glue(argv: list[str]) -> None:
        given = glue_results.parse(argv)
        assert given.num_train_epochs == 2 and given.num_runs == 2  # of MRPC in both sets
        assert given.group_by_length == given.output_dir.endswith("/glue/glue")
        rows = [{"stage": "fp32", "backend": "pytorch", "seeds": [42], "summary": summary}]
        write_results(Path(argv[2].partition("=")[2]) / "glue_mrpc.json", GLUE, {}, rows)

    for folder in ("squad/squad_xquad", "glue/glue", "glue/pretrained"):
        (tmp_path / "out" / folder).mkdir(parents=True)
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(results_table.squad_results, "main", squad)
    monkeypatch.setattr(results_table.glue_results, "main", glue)
    monkeypatch.setattr(results_table, "FOLDER", tmp_path / "results")
    results_table.measure(data, tmp_path / "bert", tmp_path / "out", 2)
    assert len(called) == 1 and called[0][1].endswith("train-v1.1.part.json")
    paths = sorted((tmp_path / "results").iterdir())
    assert [path.name for path in paths] == ["glue_mrpc.json", "pretrained_mrpc.json", "squad_xquad.json"]
    assert "| MRPC f1 |" in results_table.readme_tables(paths) and "XQuAD" not in results_table.readme_tables(paths)
    others = results_table.other_tables(paths)
    assert "| XQuAD's 1,190 questions |" in others and "| MRPC f1 |" in others


def test_losses_of_two_sets_of_a_task_stand_in_one_column(tmp_path: Path) -> None:
    """What was trained further is compared with the float model trained as long; PTQ of both sets is the first's."""

    def write(name: str, scores: dict[str, float]) -> Path:
        rows = [
            {
                "stage": stage,
                "backend": "pytorch",
                "seeds": [42],
                "summary": {"f1": {"mean": score, "standard_deviation": 0}},
            }
            for stage, score in scores.items()
        ]
        write_results(tmp_path / f"{name}_mrpc.json", GLUE, {}, rows)
        return tmp_path / f"{name}_mrpc.json"

    paths = [
        write("glue", {"fp32": 0.8, "fp32-trained": 0.82, "ft1-mse": 0.79, "tuned-q8bert": 0.81}),
        write("pretrained", {"fp32": 0.85, "ft1-mse": 0.7, "q8bert": 0.83}),
    ]
    assert results_table.choice_table(paths).splitlines() == [
        "| quantization | MRPC f1 |",
        "|---|---|",
        "| PTQ ft1, mse | 1.00 |",
        "| q8bert | 2.00 |",
        "| q8bert of the fine-tuned model | 1.00 |",
    ]


def test_a_comparison_has_commands_that_are_known_and_leaves_its_report(tmp_path: Path, monkeypatch) -> None:
    """What is run is not run here; paths are left without their folders, times without their rounds."""
    latency = {"p50_ms": 2.0, "p90_ms": 3.0, "times_as_fast": 1.0, "busy_cores": 1.0}
    row = {
        "id": "c/onnxruntime-fp32", "checkpoint": "c", "name": "onnxruntime-fp32", "runtime": "onnxruntime",
        "precision": "fp32", "reason": "", "notes": [], "file_bytes": 9_000_000, "int8_share": 0.0,
        "is_reference": True, "agreement": None, "scores": {"f1": 71.0}, "peak_rss_bytes": 1e8,
        "examples_per_second": 5.0, "latency": {"1": {"1x128": {**latency, "seconds": [0.002] * 15}}},
    }  # fmt: skip
    calibrated, compared = [], []

    def calibrate(command: Command) -> None:
        calibrated.append(parse_flags(SQUAD_FLAGS, command.words[1:], "run_squad.py", "").values)

    def compare(argv: list[str]) -> int:
        compared.append(parse_compare_flags(argv))
        report = {
            "checkpoints": {"c": {"path": "/somewhere/c"}},
            "settings": {"data": compared[0]["data"], "threads": [1], "batches": ["1x128"]},
            "machine": describe_machine(), "examples": 1000, "model_rows": 1200, "metrics": ["f1"],
            "main_metric": "f1", "baseline": row["id"], "references": {"c": row["id"]}, "notes": ["a note"],
            "rows": [row],
        }  # fmt: skip
        (tmp_path / "out" / "report").mkdir(parents=True)
        write_json_atomically(Path(compared[0]["output"]) / "report.json", report)
        return 0

    monkeypatch.setattr(Command, "run", calibrate)
    monkeypatch.setattr(compare_results, "run_compare", compare)
    files = [f"--{name}={tmp_path / name}" for name in ("model", "train_file", "predict_file")]
    compare_results.main([*files, f"--output_dir={tmp_path / 'out'}", "--threads", "1", "2", "--max_seq_length=256"])
    (values,) = calibrated
    assert (values["quant_mode"], values["percentile"], values["max_seq_length"]) == ("ft1", 99.999, 256)
    assert compared[0]["checkpoint"] == (f"{values['output_dir']}/model.ckpt-calibrated",)
    assert (compared[0]["data"], compared[0]["threads"]) == (str(tmp_path / "predict_file"), ("1", "2"))

    path = tmp_path / "out" / "compare.json"
    results = read_results(path)
    assert results["kind"] == COMPARE and str(tmp_path) not in path.read_text() and "seconds" not in path.read_text()
    assert results["command"].startswith("python -m benchmarks.compare_results --model model --train_file train_file")
    text = compare_results.compare_tables([path])
    assert "| 71.00 |" in text and "2.0 / 3.0 (1.00x)" in text and "\n- a note\n" in text
    assert "\n1,000 examples in 1,200 rows. Measured " in text
    assert results_table.tables([path]) == "" and results_table.choice_table([path]).count("\n") == 1
    pytest.importorskip("matplotlib")
    assert "<svg " in compare_results.picture(results)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        pytest.param(["--measure"], "make results DATA=FOLDER", id="no-data"),
        pytest.param(["--data=nowhere"], "DATA names nowhere, which is no folder", id="no-folder"),
        pytest.param(["--data=."], "holds none of the data", id="empty-folder"),
    ],
)
def test_measuring_without_data_is_one_sentence(
    argv: list[str], sentence: str, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_main(results_table.main, "results_table", argv) == 2
    assert sentence in capsys.readouterr().err
