"""Every mistake gets one sentence that names the file or flag, what was found, and what to do."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tiny_exports import exported, int8, tiny_checkpoint, tiny_source

from checkpoints.hugging_face import write_hugging_face
from export.__main__ import main
from export.settings import ExportSettings
from twinquant.errors import UserError
from twinquant.main import run_main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """plain: without ranges; ft1: with per-channel ranges; glue, q8bert: classifiers; model.onnx of ft1."""
    write_hugging_face(tmp_path / "plain", tiny_checkpoint())
    write_hugging_face(tmp_path / "ft1", tiny_checkpoint("squad", "ft1"))
    write_hugging_face(tmp_path / "glue", tiny_checkpoint("glue", "ft2"))
    write_hugging_face(tmp_path / "q8bert", tiny_checkpoint("glue", "ft2"))
    (tmp_path / "q8bert" / "settings.json").write_text('{"if_quant": true, "quant_mode": "q8bert"}')
    exported(tiny_source("squad", "ft1"), int8("ft1"), tmp_path / "onnx")
    return tmp_path


def error(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one sentence of a refusal: exit code 2, nothing on standard output."""
    assert run_main(main, "python -m export", words) == 2
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if "error: " in line]
    assert len(lines) == 1 and not printed.out, printed
    return lines[0].partition("error: ")[2]


# What to add to `onnx`, with {f} the folder above, and a part of the sentence.
ONNX_MISTAKES = {
    "--output={f}/o": "--checkpoint is required: the checkpoint to export",
    "--checkpoint={f}/plain": r"--output is required: the model's file \(.onnx\) or folder",
    "--checkpoint={f}/nothing --output={f}/o": "the checkpoint .*nothing does not exist; expected",
    "--checkpoint={f}/plain --output={f}/o --precision=int8": ".*plain was never calibrated: int8 needs "
    "ranges; run with --do_calib --quant_mode=ft1 .* or export with --precision=int8-dynamic, which needs none",
    "--checkpoint={f}/q8bert --output={f}/o --precision=int8": ".*q8bert was trained in mode q8bert, which has ranges",
    "--checkpoint={f}/q8bert --output={f}/o --precision=int8 --quant_mode=ft1": ".*q8bert was trained in mode q8bert",
    "--checkpoint={f}/ft1 --output={f}/o --precision=int8": "--quant_mode is required: .*ft1 has ranges, but "
    "neither calibration.json nor settings.json beside it says for which mode; expected one of ft1, ft2",
    "--checkpoint={f}/ft1 --output={f}/o --precision=int8 --quant_mode=ft2": r"quantizer \S*query/kernel_quantizer: "
    r"found a range of shape \(32,\) in .*ft1, mode ft2 needs \(\)",
    "--checkpoint={f}/glue --output={f}/o --precision=int8 --quant_mode=ort": r"query/kernel_quantizer: found a range "
    r"of shape \(\) in .*glue, mode ort needs \(32,\)",
    "--checkpoint={f}/plain --output={f}/o --task=glue": "--task=glue needs output_weights, which .*plain lacks: its "
    "head is for question answering",
    "--checkpoint={f}/plain --output={f}/o --task=qa": "--task takes one of auto, squad, glue, found 'qa'",
    "--checkpoint={f}/ft1 --output={f}/o --precision=int8 --quant_mode=ft1 --quant_exclude **": "--quant_exclude "
    "leaves nothing to quantize; --precision=fp32 is the float model",
    "--checkpoint={f}/plain --output={f}/o --precision=int4": "--precision takes one of fp32, int8, int8-dynamic",
    "--checkpoint={f}/plain --output={f}/o --quant_mode=ft1": "--quant_mode belongs to --precision=int8, found",
    "--checkpoint={f}/plain --output={f}/o --precision=int8-dynamic --target=tensorrt": "--precision=int8-dynamic is "
    "for onnxruntime: tensorrt",
    "--checkpoint={f}/plain --output={f}/o --reduce_range": "--reduce_range is for int8 models of --target=onnxruntime",
    "--checkpoint={f}/ft1 --output={f}/o --precision=int8 --quant_mode=ort --target=tensorrt": "--quant_mode=ort "
    "rounds probabilities to unsigned integers, which TensorRT lacks; use ft1 or trt",
    "--checkpoint={f}/plain --output={f}/o --int8_embeddings --target=tensorrt": "--int8_embeddings is not for Tensor",
    "--checkpoint={f}/plain --output={f}/plain/config.json/m.onnx": "the folder .*config.json cannot be made",
    "--checkpoint={f}/plain --output={f}/o --check_data={f}/no.json": "--vocab_file is required: .*plain has no vocab",
    "--checkpont={f}/plain": "unknown flag --checkpont; did you mean --checkpoint",
}


@pytest.mark.parametrize(("words", "expected"), ONNX_MISTAKES.items(), ids=ONNX_MISTAKES)
def test_onnx(words: str, expected: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(expected, sentence := error(capsys, "onnx", *words.format(f=folder).split())), sentence
    assert not (folder / "o/model.onnx").exists()


CHECK_MISTAKES = {
    "--checkpoint={f}/ft1": "--model is required: the exported model",
    "--model={f}/onnx": "--checkpoint is required: the checkpoint it was made from",
    "--model={f}/none.onnx --checkpoint={f}/ft1": "--model names .*none.onnx, which is not a file; expected a model",
    "--model={f}/truncated.onnx --checkpoint={f}/ft1": "truncated.onnx is damaged, cut off or no ONNX file",
    "--model={f}/empty.onnx --checkpoint={f}/ft1": "empty.onnx is no ONNX model: it holds no graph",
    "--model={f}/text.onnx --checkpoint={f}/ft1": "text.onnx is damaged, cut off or no ONNX file",
    "--model={f}/foreign.onnx --checkpoint={f}/ft1": "foreign.onnx was not written by `python -m export onnx`: it has "
    "no metadata of this exporter",
    "--model={f}/older.onnx --checkpoint={f}/ft1": "older.onnx was not written by .*: it has no twinquant.vnni in its",
    "--model={f}/onnx --checkpoint={f}/glue": "--task=squad needs cls/squad/output_weights, which .*glue lacks",
    "--model={f}/onnx --checkpoint={f}/ft1 --data={f}/none.json": "--vocab_file is required: .*ft1 has no vocab.txt",
    "--model={f}/onnx --checkpoint={f}/ft1 --data={f}/none.json --vocab_file={f}/words.txt": "--max_seq_length 64 is "
    "too small for --max_query_length 64",
    "--model={f}/onnx --checkpoint={f}/ft1 --data={f}/x --vocab_file={f}/words.txt --task_name=mrpc": "--task_name="
    "mrpc is for classification; .*ft1 answers questions",
}


@pytest.mark.parametrize(("words", "expected"), CHECK_MISTAKES.items(), ids=CHECK_MISTAKES)
def test_check(words: str, expected: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    whole = (folder / "onnx/model.onnx").read_bytes()
    (folder / "truncated.onnx").write_bytes(whole[:-5000])
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "text.onnx").write_text("this is no model")
    (folder / "words.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]) + "\n")
    node = helper.make_node("Identity", ["x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    onnx.save(helper.make_model(helper.make_graph([node], "g", values[:1], values[1:])), folder / "foreign.onnx")
    older = onnx.load(folder / "onnx/model.onnx")
    kept = [entry for entry in older.metadata_props if entry.key != "twinquant.vnni"]
    del older.metadata_props[:]
    older.metadata_props.extend(kept)
    onnx.save(older, folder / "older.onnx")
    assert re.search(expected, sentence := error(capsys, "check", *words.format(f=folder).split())), sentence


def test_commands(capsys: pytest.CaptureFixture[str]) -> None:
    expected = "one of onnx, check, compare, sensitivity, triton"
    assert error(capsys, "export") == f"unknown command 'export'; expected {expected}"
    assert run_main(main, "python -m export", []) == 0
    with pytest.raises(SystemExit):
        main(["onnx", "--help"])
    assert "--reduce_range" in capsys.readouterr().out


def test_a_checkpoint_without_a_head(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tiny_checkpoint()
    heads = {name: checkpoint.tensors.pop(name) for name in ("cls/squad/output_weights", "cls/squad/output_bias")}
    write_hugging_face(folder / "headless", checkpoint)
    words = ["onnx", f"--checkpoint={folder}/headless", f"--output={folder}/o"]
    expected = "headless has no head that can be exported: expected cls/squad/output_weights (question answering) or"
    assert expected in error(capsys, *words)
    checkpoint.tensors |= heads | {
        "output_weights": np.zeros((2, 32), np.float32),
        "output_bias": np.zeros(2, np.float32),
    }
    write_hugging_face(folder / "both", checkpoint)
    words[1] = f"--checkpoint={folder}/both"
    assert "say which with --task=squad or --task=glue" in error(capsys, *words)
    assert run_main(main, "export", [*words, "--task=squad", "--nocheck"]) == 0


def test_a_checkpoint_without_config(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "plain/config.json").rename(folder / "config.json")
    words = ["onnx", f"--checkpoint={folder}/plain", f"--output={folder}/o", "--nocheck"]
    assert "--bert_config_file is required: " in error(capsys, *words)
    assert run_main(main, "export", [*words, f"--bert_config_file={folder}/config.json"]) == 0


def test_a_truncated_data_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import export.commands

    monkeypatch.setattr(export.commands, "LARGEST_MESSAGE", 30_000)
    path, metadata = exported(tiny_source(), ExportSettings(), tmp_path)
    from export.runtime import OnnxPredictor

    (tmp_path / "model.onnx.data").write_bytes(b"")
    with pytest.raises(UserError, match=r"onnxruntime cannot load .*model\.onnx"):
        OnnxPredictor(path, metadata)


def test_calibrated_for_a_custom_mode(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """calibration.json is believed about the mode, and one that is no --quant_mode must be named by the user."""
    from quantization.modes import get_mode
    from quantization.ranges import calibration_report

    checkpoint = tiny_checkpoint("squad", "ft1")
    report = calibration_report(checkpoint.ranges, {}, {"calib_method": "max"}, 2, get_mode("ft1"))
    (folder / "ft1/calibration.json").write_text(json.dumps(report))
    words = ["onnx", f"--checkpoint={folder}/ft1", f"--output={folder}/o", "--precision=int8", "--nocheck"]
    assert run_main(main, "export", words) == 0
    found = {entry.key: entry.value for entry in onnx.load(folder / "o/model.onnx").metadata_props}
    assert found["twinquant.quant_mode"] == "ft1"
    capsys.readouterr()
    (folder / "ft1/calibration.json").write_text(json.dumps(report | {"quant_mode": "custom"}))
    shutil.rmtree(folder / "o")
    assert "--quant_mode is required" in error(capsys, *words)
