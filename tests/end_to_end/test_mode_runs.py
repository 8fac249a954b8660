"""PTQ in every mode and with every method, in both frameworks, which must find the same ranges and answers."""

import json
from pathlib import Path

import numpy as np
import pytest
from small_runs import flags, random_tensors, saved, succeed, tiny_config, vocabulary, write_squad_folder

from checkpoints.tf_checkpoint import write_tf_checkpoint
from checkpoints.value import Checkpoint

# The model has one layer. How many of its 29 quantizers FasterTransformer's modes turn on (192, 288, 300 and 240 in the
# 12 layers of BERT-base); trt adds the last layer's output, ort has those of ft1.
ENABLED = {"ft1": 16, "ft2": 24, "ft3": 25, "trt": 20, "ort": 16}
# Each mode and each method with each framework.
CASES = [
    ("tensorflow", "ft1", "max"),
    ("tensorflow", "ft2", "percentile"),
    ("tensorflow", "ft3", "mse"),
    ("tensorflow", "trt", "entropy"),
    ("tensorflow", "ort", "percentile"),
    ("pytorch", "ft1", "entropy"),
    ("pytorch", "ft2", "max"),
    ("pytorch", "ft3", "percentile"),
    ("pytorch", "trt", "mse"),
    ("pytorch", "ort", "max"),
]
COMMON = flags(
    """--train_file=squad_data/train-v1.1.json --predict_file=squad_data/dev-v1.1.json --max_seq_length=64
    --max_query_length=16 --doc_stride=32 --train_batch_size=4 --calib_batch=3 --do_predict --if_quant"""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tuned/model.ckpt-1, with a head, and data."""
    folder = tmp_path_factory.mktemp("modes")
    tokens = vocabulary()
    (folder / "tuned").mkdir()
    (folder / "words.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    config = tiny_config(len(tokens))
    checkpoint = Checkpoint(random_tensors(config), config=config, vocab_file=folder / "words.txt")
    write_tf_checkpoint(folder / "tuned/model.ckpt-1", checkpoint, 1)
    write_squad_folder(folder / "squad_data", train=6, dev=6)
    return folder


@pytest.mark.parametrize(("backend", "mode", "method"), CASES, ids=["-".join(case) for case in CASES])
def test_ptq(folder: Path, backend: str, mode: str, method: str) -> None:
    output = f"{backend}-{mode}-{method}"
    calibrate = ["--init_checkpoint=tuned/model.ckpt-1", "--do_calib", f"--calib_method={method}"]
    arguments = [*COMMON, f"--quant_mode={mode}"]
    outcome = succeed(*arguments, *calibrate, f"--backend={backend}", f"--output_dir={output}", cwd=folder)
    assert f"fake quantization is on: mode {mode}" in outcome.err
    ranges = saved(folder / output / "model.ckpt-calibrated").ranges
    assert len(ranges) == 29 + 1
    per_channel = mode in ("ft1", "ort")
    for scope, amax in ranges.items():
        assert np.isfinite(amax).all() and (amax > 0).all(), scope
        assert amax.ndim == (1 if per_channel and scope.endswith("kernel_quantizer") else 0), scope
    report = json.loads((folder / output / "calibration.json").read_text())
    enabled = [scope for scope, entry in report["quantizers"].items() if entry["enabled"]]
    assert len(enabled) == ENABLED[mode] + (mode == "trt")
    if backend == "pytorch":
        return

    # The other framework: calibrated there, the same ranges; predicted there with these ranges, the same answers.
    there = f"{output}-there"
    succeed(*arguments, *calibrate, "--backend=pytorch", f"--output_dir={there}", cwd=folder)
    other = saved(folder / there / "model.ckpt-calibrated").ranges
    for scope, amax in ranges.items():
        np.testing.assert_allclose(other[scope], amax, rtol=2e-3, err_msg=scope)
    predict = ["--backend=pytorch", f"--init_checkpoint={output}/model.ckpt-calibrated", f"--output_dir={there}-2"]
    # Without --quant_mode the mode is that of the calibration, and not the default.
    outcome = succeed(*COMMON, *predict, cwd=folder)
    assert f"fake quantization is on: mode {mode}" in outcome.err
    assert (f"calibrated was calibrated: --quant_mode={mode}" in outcome.err) == (mode != "ft2")
    best = [json.loads((folder / name / "nbest_predictions.json").read_text()) for name in (output, f"{there}-2")]
    for identifier, entries in best[0].items():
        for key in ("start_logit", "end_logit"):
            assert abs(entries[0][key] - best[1][identifier][0][key]) < 0.02, identifier
    same = [best[0][identifier][0]["text"] == best[1][identifier][0]["text"] for identifier in best[0]]
    assert sum(same) >= len(same) - 1


def test_every_method_finds_other_ranges(folder: Path) -> None:
    """On the same model and data; the maximum is never below the others."""
    found = {}
    for method in ("max", "percentile", "mse", "entropy"):
        calibrate = ["--init_checkpoint=tuned/model.ckpt-1", "--do_calib", f"--calib_method={method}", "--nodo_predict"]
        arguments = [*COMMON, *calibrate, "--quant_mode=ft1", "--backend=pytorch", f"--output_dir=method-{method}"]
        succeed(*arguments, cwd=folder)
        ranges = saved(folder / f"method-{method}/model.ckpt-calibrated").ranges
        scopes = [scope for scope in ranges if not scope.endswith("kernel_quantizer")]
        found[method] = np.array([ranges[scope] for scope in scopes])
    assert len({tuple(values) for values in found.values()}) == 4
    for method in ("percentile", "mse", "entropy"):
        assert (found[method] <= found["max"]).all(), method


@pytest.mark.parametrize("backend", ["tensorflow", "pytorch"])
def test_single_settings_make_a_mode_of_their_own(folder: Path, backend: str) -> None:
    """The PyTorch original's --quant-per-tensor, --fuse-qkv and --quant-disable-keyword, without --quant_mode."""
    words = ("final_input", "layernorm_input", "softmax")
    single = ["--quant-per-tensor", "--fuse-qkv", "--quant-disable-keyword", *words]
    calibrate = ["--init_checkpoint=tuned/model.ckpt-1", "--do_calib", f"--output_dir=custom-{backend}"]
    succeed(*COMMON, *single, *calibrate, f"--backend={backend}", cwd=folder)
    report = json.loads((folder / f"custom-{backend}/calibration.json").read_text())
    disabled = {scope for scope, entry in report["quantizers"].items() if not entry["enabled"]}
    assert len(disabled) == 3 + 1
    assert all(any(word in scope for word in words) for scope in disabled)
    ranges = saved(folder / f"custom-{backend}/model.ckpt-calibrated").ranges
    query, key = (ranges[f"bert/encoder/layer_0/attention/self/{name}/kernel_quantizer"] for name in ("query", "key"))
    assert query.ndim == 0 and query == key


@pytest.mark.parametrize("backend", ["tensorflow", "pytorch"])
def test_everything_excluded_is_the_float_model(folder: Path, backend: str) -> None:
    arguments = [*COMMON, "--init_checkpoint=tuned/model.ckpt-1", f"--backend={backend}", "--quant_mode=ft2"]
    output = f"{backend}-excluded"
    outcome = succeed(*arguments, "--do_calib", "--quant_exclude", "layer_*", f"--output_dir={output}", cwd=folder)
    assert "left in float by --quant_exclude: bert/encoder/layer_0/attention/output/add_residual" in outcome.err
    report = json.loads((folder / output / "calibration.json").read_text())
    assert len(report["quant_exclude"]) == ENABLED["ft2"]
    assert not any(entry["enabled"] for entry in report["quantizers"].values())
    floats = [argument for argument in arguments if argument != "--if_quant"]
    succeed(*floats, f"--output_dir={output}-float", cwd=folder)
    answers = [(folder / name / "nbest_predictions.json").read_bytes() for name in (output, f"{output}-float")]
    assert answers[0] == answers[1]
