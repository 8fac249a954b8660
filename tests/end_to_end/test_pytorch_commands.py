"""The commands of FasterTransformer's PyTorch script, in its own spellings, each from the pytorch_model.bin of another.

`python -m torch.distributed.launch --nproc_per_node=8` is left out: one process trains.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import (
    Outcome,
    assert_equal_arrays,
    flags,
    random_tensors,
    saved,
    succeed,
    tiny_config,
    vocabulary,
    write_squad_folder,
)

from checkpoints.fastertransformer import write_fastertransformer
from checkpoints.value import Checkpoint

COMMON = """--bert_model=bert-base-uncased --config_file=model/bert_config.json --vocab_file=model/vocab.txt
    --train_file=squad_data/train-v1.1.json --predict_file=squad_data/dev-v1.1.json --eval_script=evaluate-v1.1.py
    --max_steps=-1 --fp16 --do_lower_case --max_seq_length=128 --max_query_length=32 --doc_stride=64 """
CALIBRATE = "--do_calib --num-calib-batch=16 --train_batch_size=16 --calibrator percentile --quant_mode ft2 "
TRAIN = "--do_train --do_predict --do_eval --train_batch_size=4 --learning_rate=3e-5 "
COMMANDS = {
    "finetuned": "--init_checkpoint=model/pytorch_model.bin --num_train_epochs=2.0 --quant-disable " + TRAIN,
    "ptq": "--init_checkpoint=finetuned/pytorch_model.bin --percentile 99.999 --do_predict --do_eval " + CALIBRATE,
    "calibrated": "--init_checkpoint=model/pytorch_model.bin --percentile 99.99 " + CALIBRATE,
    "qat": "--init_checkpoint=calibrated/pytorch_model.bin --num_train_epochs=2.0 --quant_mode ft2 " + TRAIN,
    "calibrated_kd": "--init_checkpoint=finetuned/pytorch_model.bin --percentile 99.99 " + CALIBRATE,
    "qat_kd": "--init_checkpoint=calibrated_kd/pytorch_model.bin --num_train_epochs=3.0 --quant_mode ft2 "
    "--distillation --teacher=finetuned/pytorch_model.bin " + TRAIN,
}
STEPS = {"finetuned": 7, "qat": 7, "qat_kd": 10}  # int(14 / 4 * epochs)
PREDICTED = ("finetuned", "ptq", "qat", "qat_kd")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twin")
    tokens = vocabulary()
    (folder / "model").mkdir()
    (folder / "model/vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    config = tiny_config(len(tokens))
    write_fastertransformer(folder / "model/pytorch_model.bin", Checkpoint(random_tensors(config, None), config=config))
    write_squad_folder(folder / "squad_data", train=14, dev=6)
    return folder


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, Outcome]:
    """Every command, run in order, without --backend."""
    return {
        name: succeed(
            *flags(COMMON + command), f"--output_dir={name}", f"--json-summary={name}/results.json", cwd=folder
        )
        for name, command in COMMANDS.items()
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_the_script_s_own_backend_and_defaults(outcomes: dict[str, Outcome], command: str) -> None:
    assert "backend: pytorch" in outcomes[command].err
    assert "its defaults hold" in outcomes[command].err


@pytest.mark.parametrize("command", STEPS)
def test_training_counts_steps_and_losses(outcomes: dict[str, Outcome], folder: Path, command: str) -> None:
    assert (folder / command / f"model.ckpt-{STEPS[command]}/model.safetensors").is_file()
    assert outcomes[command].losses and np.isfinite(outcomes[command].losses).all()


@pytest.mark.parametrize("command", PREDICTED)
def test_scores_are_printed_and_summarized(outcomes: dict[str, Outcome], folder: Path, command: str) -> None:
    summary = json.loads((folder / command / "results.json").read_text())
    assert outcomes[command].scores == {name: summary[name] for name in ("exact_match", "f1")}
    assert len(json.loads((folder / command / "predictions.json").read_text())) == 6


@pytest.mark.parametrize("command", COMMANDS)
def test_the_state_dict_equals_the_checkpoint(outcomes: dict[str, Outcome], folder: Path, command: str) -> None:
    """pytorch_model.bin holds the same weights and ranges as the checkpoint folder, in the original's layout."""
    label = STEPS.get(command, "calibrated")
    twin, checkpoint = saved(folder / command / "pytorch_model.bin"), saved(folder / command / f"model.ckpt-{label}")
    assert_equal_arrays(twin.tensors, checkpoint.tensors)
    assert_equal_arrays(twin.ranges, checkpoint.ranges)
    state = torch.load(folder / command / "pytorch_model.bin", weights_only=True)
    assert any(key.endswith("._amax") for key in state) == (command != "finetuned")
    assert "bert.embeddings.LayerNorm.gamma" in state and "qa_outputs.weight" in state


@pytest.mark.parametrize(("trained", "calibrated"), [("qat", "calibrated"), ("qat_kd", "calibrated_kd")])
def test_training_never_updates_ranges(
    outcomes: dict[str, Outcome], folder: Path, trained: str, calibrated: str
) -> None:
    before, after = (saved(folder / name / "pytorch_model.bin") for name in (calibrated, trained))
    assert_equal_arrays(after.ranges, before.ranges)
    name = "bert/encoder/layer_0/intermediate/dense/kernel"
    assert not np.array_equal(after.tensors[name], before.tensors[name])


def test_ptq_predicts_quantized(outcomes: dict[str, Outcome], folder: Path) -> None:
    """In this dialect quantization is on unless --quant-disable says otherwise."""
    assert "fake quantization is on: mode ft2" in outcomes["ptq"].err
    assert "fake quantization" not in outcomes["finetuned"].err
