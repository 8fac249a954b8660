"""Checkpoints and folders that cannot be used: one sentence, exit code 2, and what was there stays."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_runs import assert_equal_arrays, flags, random_tensors, run, saved, succeed, tiny_config, vocabulary

from checkpoints.hugging_face import write_hugging_face
from checkpoints.tf_bundle import write_bundle
from checkpoints.tf_checkpoint import write_tf_checkpoint
from checkpoints.value import Checkpoint

FILES = flags(
    """--bert_config_file=squad_model/bert_config.json --vocab_file=squad_model/vocab.txt
    --train_file=squad_data/train-v1.1.json --predict_file=squad_data/dev-v1.1.json --max_seq_length=64
    --max_query_length=16 --doc_stride=32 --train_batch_size=4 --backend=pytorch"""
)
TRAIN = [*FILES, "--do_train", "--max_steps=2", "--init_checkpoint=squad_model/bert_model.ckpt", "--output_dir=out"]


def predict_with(checkpoint: str) -> list[str]:
    return [*FILES, "--do_predict", f"--init_checkpoint={checkpoint}", "--output_dir=predicted"]


def contents(folder: Path) -> dict[str, bytes]:
    """But for run.json, in which every run is told, also one that is refused."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "run.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def models(workplace: Path) -> Path:
    """bundle/model.ckpt-1, folder/ (Hugging Face), both with the same weights and a head."""
    config = tiny_config(len(vocabulary()))
    vocab_file = workplace / "squad_model/vocab.txt"
    checkpoint = Checkpoint(random_tensors(config), config=config, vocab_file=vocab_file)
    (workplace / "bundle").mkdir()
    write_tf_checkpoint(workplace / "bundle/model.ckpt-1", checkpoint, 1)
    write_hugging_face(workplace / "folder", checkpoint)
    return workplace


@pytest.mark.parametrize(
    ("file", "checkpoint"),
    [
        ("bundle/model.ckpt-1.data-00000-of-00001", "bundle/model.ckpt-1"),
        ("bundle/model.ckpt-1.index", "bundle/model.ckpt-1"),
        ("folder/model.safetensors", "folder"),
        ("folder/config.json", "folder"),
    ],
)
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99], ids=["empty", "half", "nearly-whole"])
def test_truncated(models: Path, file: str, checkpoint: str, kept: float) -> None:
    data = (models / file).read_bytes()
    (models / file).write_bytes(data[: int(len(data) * kept)])
    arguments = predict_with(checkpoint)
    if file == "folder/config.json":
        arguments = [argument for argument in arguments if "config" not in argument]
    error = run(*arguments, cwd=models).error()
    assert file in error


def test_a_lost_data_file(models: Path) -> None:
    (models / "bundle/model.ckpt-1.data-00000-of-00001").unlink()
    assert (
        "model.ckpt-1.data-00000-of-00001 is missing" in run(*predict_with("bundle/model.ckpt-1"), cwd=models).error()
    )


def test_a_lost_index(models: Path) -> None:
    (models / "bundle/model.ckpt-1.index").unlink()
    error = run(*predict_with("bundle/model.ckpt-1"), cwd=models).error()
    assert "bundle/model.ckpt-1" in error and "model.ckpt-1.index" in error


@pytest.mark.parametrize("name", ["a.txt", "pytorch_model.bin", "model.pt", "model.safetensors", "model.ckpt.index"])
def test_a_text_file_is_no_checkpoint(models: Path, name: str) -> None:
    (models / "foreign").mkdir()
    (models / "foreign" / name).write_text("Dear reader, this is a letter and not a checkpoint.\n" * 20)
    error = run(*predict_with(f"foreign/{name}"), cwd=models).error()
    assert f"foreign/{name}" in error


def test_a_pickle_is_not_run(models: Path) -> None:
    """A file that would run code when it is unpickled is refused, and the code is not run."""
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (models / "exploded",))

    (models / "foreign.bin").write_bytes(pickle.dumps(Bomb(), protocol=2))
    assert "foreign.bin" in run(*predict_with("foreign.bin"), cwd=models).error()
    assert not (models / "exploded").exists()


def test_a_model_of_another_kind(models: Path) -> None:
    (models / "folder/config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 12, "vocab_size": 50257}))
    files = [argument for argument in predict_with("folder") if "config" not in argument]
    error = run(*files, cwd=models).error()
    assert "folder/config.json" in error and "'gpt2'" in error and "only 'bert'" in error


def test_a_config_of_another_size(models: Path) -> None:
    config = json.loads((models / "squad_model/bert_config.json").read_text()) | {"intermediate_size": 48}
    (models / "squad_model/bert_config.json").write_text(json.dumps(config))
    error = run(*predict_with("bundle/model.ckpt-1"), cwd=models).error()
    assert "does not fit the model configuration (intermediate_size is 48, the checkpoint's 64)" in error
    assert "bert/encoder/layer_0/intermediate/dense/kernel is [32, 64], expected [32, 48]" in error
    assert "bert/encoder/layer_0/output/dense/kernel is [64, 32], expected [48, 32]" in error


def test_missing_tensors_are_all_named(models: Path) -> None:
    tensors = random_tensors(tiny_config(len(vocabulary())))
    for name in ("bert/embeddings/LayerNorm/beta", "bert/encoder/layer_0/output/dense/bias"):
        del tensors[name]
    write_bundle(models / "partial.ckpt", tensors)
    error = run(*predict_with("partial.ckpt"), cwd=models).error()
    assert "lacks 2 tensors" in error
    assert "bert/embeddings/LayerNorm/beta" in error and "bert/encoder/layer_0/output/dense/bias" in error


def test_a_head_that_was_never_trained(workplace: Path) -> None:
    error = run(*predict_with("squad_model/bert_model.ckpt"), cwd=workplace).error()
    assert "cls/squad/output_weights" in error and "never trained" in error


def test_calibration_alone_needs_a_checkpoint(workplace: Path) -> None:
    """It does not take the newest of --output_dir, as a prediction does."""
    succeed(*TRAIN, cwd=workplace)
    error = run(*FILES, "--do_calib", "--output_dir=out", cwd=workplace).error()
    assert "--do_calib needs --init_checkpoint" in error


def test_a_checkpoint_that_is_not_there(models: Path) -> None:
    error = run(*predict_with("bundle/model.ckpt-5474"), cwd=models).error()
    assert "bundle/model.ckpt-5474" in error
    assert not (models / "predicted").exists()


@pytest.mark.parametrize("output", ["taken", "taken/below", "/proc/twinquant", "/dev/null/out"])
def test_an_output_dir_that_cannot_be_made(workplace: Path, output: str) -> None:
    (workplace / "taken").write_text("a file\n")
    assert output in run(*TRAIN, f"--output_dir={output}", cwd=workplace).error()
    assert (workplace / "taken").read_text() == "a file\n"


def test_an_output_dir_of_another_run(workplace: Path) -> None:
    """Another learning rate: said, and nothing is touched; with --overwrite_output_dir the new run takes its place."""
    succeed(*TRAIN, "--learning_rate=1e-3", cwd=workplace)
    before = contents(workplace / "out")
    error = run(*TRAIN, "--learning_rate=2e-3", cwd=workplace).error()
    assert "out" in error and "learning_rate: 0.001 there, 0.002 here" in error and "--overwrite_output_dir" in error
    assert contents(workplace / "out") == before
    succeed(*TRAIN, "--learning_rate=2e-3", "--overwrite_output_dir", cwd=workplace)
    succeed(*TRAIN, "--learning_rate=2e-3", "--output_dir=fresh", cwd=workplace)
    assert_equal_arrays(saved(workplace / "out/model.ckpt-2").tensors, saved(workplace / "fresh/model.ckpt-2").tensors)


def test_overwriting_waits_until_the_new_run_can_train(workplace: Path) -> None:
    """A start that fails, here for its init_checkpoint, does not cost the old checkpoints."""
    succeed(*TRAIN, cwd=workplace)
    before = contents(workplace / "out")
    tensors = random_tensors(tiny_config(len(vocabulary())))
    del tensors["bert/embeddings/LayerNorm/beta"]
    write_bundle(workplace / "partial.ckpt", tensors)
    other = ["--learning_rate=2e-3", "--overwrite_output_dir", "--init_checkpoint=partial.ckpt"]
    assert "bert/embeddings/LayerNorm/beta" in run(*TRAIN, *other, cwd=workplace).error()
    assert contents(workplace / "out") == before


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        pytest.param("--quant_mode=ft4", "--quant_mode takes one of ft1, ft2, ft3, trt, ort, found 'ft4'", id="mode"),
        pytest.param("--calib_method=median", "--calib_method takes one of max, percentile, mse, entropy", id="method"),
        pytest.param("--percentile=101", "--percentile takes", id="percentile"),
        pytest.param("--backend=jax", "--backend takes one of tensorflow, pytorch", id="backend"),
        pytest.param("--device=tpu", "--device takes auto", id="device"),
        pytest.param("--learning_rate=fast", "--learning_rate takes a number", id="not-a-number"),
        pytest.param("--learning_rate=nan", "--learning_rate takes", id="nan"),
        pytest.param("--learning_rat=1", "did you mean --learning_rate?", id="misspelled"),
        pytest.param("--distillation", "--distillation needs --teacher", id="no-teacher"),
    ],
)
def test_flags(workplace: Path, flag: str, words: str) -> None:
    assert words in run(*TRAIN, "--if_quant", "--do_calib", flag, cwd=workplace).error()
    assert not (workplace / "out").exists()


@pytest.mark.parametrize("work", ["--do_predict", "--do_train"])
def test_quantization_without_ranges(models: Path, work: str) -> None:
    files = [*predict_with("bundle/model.ckpt-1"), "--nodo_predict", work, "--max_steps=1", "--if_quant"]
    outcome = run(*files, cwd=models)
    assert "bundle/model.ckpt-1 was never calibrated" in outcome.error()
    assert "--do_calib --quant_mode=ft2" in outcome.error()
    # Said before the framework is loaded and anything is read or predicted.
    assert "float32 matrix products" not in outcome.err


@pytest.mark.parametrize(("calibrated", "used"), [("ft1", "ft2"), ("ft2", "ft1"), ("trt", "ort")])
def test_ranges_of_another_mode(models: Path, calibrated: str, used: str) -> None:
    """One range per output channel against one per tensor: the first quantizer that does not fit is named."""
    calibrate = ["--do_calib", "--calib_batch=1", f"--quant_mode={calibrated}", "--init_checkpoint=bundle/model.ckpt-1"]
    succeed(*FILES, *calibrate, "--output_dir=calibrated", cwd=models)
    quantized = ["--if_quant", f"--quant_mode={used}"]
    error = run(*predict_with("calibrated/model.ckpt-calibrated"), *quantized, cwd=models).error()
    assert "bert/encoder/layer_0/attention/self/query/kernel_quantizer" in error
    assert f"mode {used} needs" in error and f"--do_calib --quant_mode={used}" in error


def test_tensors_that_are_not_finite(models: Path) -> None:
    """Found in training at the first step, whose number is said."""
    tensors = random_tensors(tiny_config(len(vocabulary())))
    tensors["bert/encoder/layer_0/output/dense/kernel"][3, 5] = np.inf
    write_bundle(models / "inf.ckpt", tensors)
    error = run(*TRAIN, "--init_checkpoint=inf.ckpt", cwd=models).error()
    assert "not finite" in error and "at step 1" in error and "nothing was saved yet" in error
    assert not list((models / "out").glob("model.ckpt-*"))


def test_copying_the_folder_keeps_it_usable(workplace: Path) -> None:
    """The state file's names are relative, so a moved run is found again."""
    succeed(*TRAIN, cwd=workplace)
    shutil.move(workplace / "out", workplace / "moved")
    succeed(*FILES, "--do_predict", "--output_dir=moved", cwd=workplace)
