"""What whole runs leave behind of themselves: run.json in every output folder, and a card beside every model."""

import json
import signal
from pathlib import Path

import pytest
from small_runs import BACKENDS, flags, run, start, succeed
from test_glue_runs import START as GLUE
from test_glue_runs import write_mrpc

import run_glue
from twinquant.__main__ import main as twinquant
from twinquant.model_card import is_ours
from twinquant.run_record import read_records

FILES = flags(
    """--bert_config_file=squad_model/bert_config.json --vocab_file=squad_model/vocab.txt
    --train_file=squad_data/train-v1.1.json --predict_file=squad_data/dev-v1.1.json
    --init_checkpoint=squad_model/bert_model.ckpt --max_seq_length=64 --max_query_length=16 --doc_stride=32
    --train_batch_size=4 --calib_batch=1"""
)


def records(folder: Path) -> list[dict]:
    return read_records(folder / "run.json")


@pytest.mark.parametrize("backend", BACKENDS)
def test_calibration_training_and_prediction(workplace: Path, backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    work = ["--do_calib", "--do_train", "--do_predict", "--if_quant", "--quant_mode=ft1", "--max_steps=2"]
    outcome = succeed(*FILES, *work, f"--backend={backend}", "--output_dir=out", cwd=workplace)
    (found,) = records(workplace / "out")
    assert (found["state"], found["backend"], found["mode"]) == ("finished", backend, "ft1")
    assert list(found["phases"]) == ["load", "calibrate", "train", "predict"]
    assert {name: found["results"][name] for name in ("exact_match", "f1")} == outcome.scores
    assert found["checkpoint"] == "out/model.ckpt-2" and found["start"] == "squad_model/bert_model.ckpt"
    assert found["training"] == {"from_step": 0, "to_step": 2} and " thread" in found["device"]
    assert found["argv"][-1] == "--output_dir=out" and found["settings"]["max_steps"] == 2

    cards = {"tensorflow": ["."], "pytorch": ["model.ckpt-2", "model.ckpt-calibrated"]}[backend]
    texts = {name: (workplace / "out" / name / "README.md").read_text() for name in cards}
    text = texts[cards[0]]
    assert "# model.ckpt-2\n" in text and f"| f1 | {outcome.scores['f1']:.4f} |" in text
    assert "| Quantization | ft1 |" in text and "percentile 99.99, 1 batches of 4 of squad_data/train-v1.1.json" in text
    assert "--do_calib --do_train --do_predict --if_quant" in text and "int8 is simulated" in text
    if backend == "pytorch":  # written before anything was predicted, and left so
        assert "None were known" in texts["model.ckpt-calibrated"]

    # A prediction with another run's model describes itself, and leaves the card of the model alone.
    succeed(*FILES, "--do_predict", f"--backend={backend}", "--output_dir=out", cwd=workplace)
    assert [one["mode"] for one in records(workplace / "out")] == ["ft1", "fp32"]
    assert (workplace / "out" / cards[0] / "README.md").read_text() == text

    assert twinquant(["runs", str(workplace)]) == 0
    assert "calibrate train predict" in capsys.readouterr().out


def test_a_refused_run_is_told_where_its_folder_was_there(workplace: Path) -> None:
    work = ["--do_train", "--max_steps=1", "--backend=pytorch", "--output_dir=out"]
    succeed(*FILES, *work, cwd=workplace)
    error = run(*FILES, *work, "--learning_rate=1e-3", cwd=workplace).error()
    assert [one["state"] for one in records(workplace / "out")] == ["finished", "failed"]
    assert records(workplace / "out")[1]["error"] == error and records(workplace / "out")[1]["exit_code"] == 2
    run(*FILES, "--do_predict", "--init_checkpoint=squad_data/dev-v1.1.json", "--output_dir=new", cwd=workplace).error()
    assert not (workplace / "new").exists()


def test_an_interrupted_and_a_killed_run_then_one_that_finishes(workplace: Path) -> None:
    work = [*FILES, "--do_train", "--max_steps=4000", "--save_checkpoints_steps=4000", "--log_freq=1"]
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = start(*work, "--backend=pytorch", "--output_dir=out", cwd=workplace)
        assert process.stderr is not None
        for line in process.stderr:
            if "train: " in line:
                break
        assert records(workplace / "out")[-1]["state"] == "running"
        process.send_signal(number)
        process.communicate(timeout=120)
    killed, interrupted = records(workplace / "out")
    assert (killed["state"], killed["error"]) == ("killed", "the process ended without a word in phase train")
    assert (interrupted["state"], interrupted["exit_code"]) == ("interrupted", 143)
    assert "SIGTERM received: saved out/model.ckpt-" in interrupted["error"]


def test_several_seeds(workplace: Path) -> None:
    write_mrpc(workplace / "MRPC")
    task = ["--task_name=MRPC", "--data_dir=MRPC", *GLUE, "--init_checkpoint=squad_model/bert_model.ckpt"]
    work = ["--do_train", "--do_eval", "--max_steps=1", "--num_runs=2", "--seed=7"]
    succeed(*task, *work, "--backend=pytorch", "--output_dir=out", cwd=workplace, script=run_glue)
    (whole,) = records(workplace / "out")
    assert list(whole["phases"]) == ["seed 7", "seed 8"] and set(whole["results"]["acc"]) == {
        "mean",
        "standard_deviation",
    }
    for seed in (7, 8):
        (one,) = records(workplace / f"out/seed-{seed}")
        assert one["settings"]["seed"] == seed and one["results"]["acc"] >= 0 and one["state"] == "finished"
        card = (workplace / f"out/seed-{seed}/model.ckpt-1/README.md").read_text()
        assert f"seed {seed} |" in card and "On glue/mrpc:" in card and "pipeline_tag: text-classification" in card


def test_the_best_checkpoint_and_dynamic_quantization_have_cards(workplace: Path) -> None:
    write_mrpc(workplace / "MRPC")
    task = ["--task_name=MRPC", "--data_dir=MRPC", *GLUE, "--init_checkpoint=squad_model/bert_model.ckpt"]
    work = ["--do_train", "--max_steps=2", "--eval_strategy=steps", "--eval_steps=1", "--save_checkpoints_steps=1"]
    succeed(*task, *work, "--backend=pytorch", "--output_dir=out", cwd=workplace, script=run_glue)
    evaluations = json.loads((workplace / "out/evaluations.json").read_text())
    best = max(evaluations, key=lambda entry: entry["score"])
    cards = {name: (workplace / f"out/model.ckpt-{name}/README.md").read_text() for name in ("1", "2", "best")}
    for name, entry in (("1", evaluations[0]), ("2", evaluations[1]), ("best", best)):
        assert f"| acc | {entry['scores']['acc']:.4f} |" in cards[name], name
    dynamic = [*task, "--init_checkpoint=out/model.ckpt-2", "--do_eval", "--quant_scheme=dynamic"]
    succeed(*dynamic, "--output_dir=dynamic", cwd=workplace, script=run_glue)
    assert "with int8 weights" in (workplace / "dynamic/int8/README.md").read_text()
    assert "in floating point" in (workplace / "dynamic/fp32/model/README.md").read_text()
    assert records(workplace / "dynamic")[0]["mode"] == "dynamic"


def test_q8bert_and_the_twin_s_file_have_a_card_in_the_folder(workplace: Path) -> None:
    write_mrpc(workplace / "MRPC")
    task = ["--task_name=MRPC", "--data_dir=MRPC", *GLUE, "--init_checkpoint=squad_model/bert_model.ckpt"]
    work = ["--do_train", "--max_steps=1", "--quant_scheme=q8bert", "--backend=pytorch", "--output_dir=q"]
    succeed(*task, *work, cwd=workplace, script=run_glue)
    card = (workplace / "q/README.md").read_text()
    assert "# quantized_model.safetensors\n" in card and "in mode q8bert" in card and "int8 weights" in card
    assert "transformers" not in card and "`q/model.ckpt-1` is the same model" in card
    shown = "--init_checkpoint=q --max_seq_length=32 --quant_scheme=q8bert --load_quantized_model"
    assert f"python run_glue.py {shown} ..." in card
    data = ["--task_name=MRPC", "--data_dir=MRPC", "--do_eval", "--backend=pytorch", "--output_dir=q8"]
    succeed(*shown.split(), *data, cwd=workplace, script=run_glue)
    assert "--init_checkpoint=q/model.ckpt-1 " in (workplace / "q/model.ckpt-1/README.md").read_text()
    twin = [word.replace("--bert_config_file", "--config_file") for word in FILES]
    succeed(*twin, "--bert_model=x", "--do_calib", "--quant_mode=ft2", "--output_dir=t", cwd=workplace)
    assert (workplace / "t/pytorch_model.bin").exists()
    card = (workplace / "t/README.md").read_text()
    assert "# pytorch_model.bin\n" in card and "transformers" not in card and "`t/model.ckpt-calibrated` is" in card
    assert "--init_checkpoint=t/pytorch_model.bin --max_seq_length=64 --max_query_length=16 " in card
    assert " --if_quant --quant_mode=ft2 ..." in card


def test_somebody_s_readme_in_the_output_folder_stays(workplace: Path) -> None:
    (workplace / "out").mkdir()
    (workplace / "out/README.md").write_text("mine")
    work = ["--do_train", "--max_steps=1", "--backend=tensorflow", "--output_dir=out"]
    outcome = succeed(*FILES, *work, cwd=workplace)
    assert (workplace / "out/README.md").read_text() == "mine"
    assert not is_ours(workplace / "out/README.md") and "is not this program's and stays" in outcome.err
