"""Equal weights give equal bytes, whatever form the checkpoint has; no framework is needed; files of any size."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from tiny_bert import make_batch
from tiny_exports import TASKS, exported, int8, tiny_checkpoint, tiny_source

import export.commands
from checkpoints.fastertransformer import write_fastertransformer
from checkpoints.hugging_face import write_hugging_face
from checkpoints.tf_checkpoint import write_tf_checkpoint
from checkpoints.value import Checkpoint
from export.__main__ import main
from export.metadata import describe_model
from export.model import build_model
from export.model_file import write_model
from export.runtime import model_feeds
from export.settings import ExportSettings
from quantization.modes import get_mode
from quantization.ranges import calibration_report

BLOCKED = """
import sys
for name in ("torch", "tensorflow", "transformers"):
    sys.modules[name] = None  # importing it raises ImportError
from export.__main__ import main
code = main(sys.argv[1:])
assert not any(name.partition(".")[0] in ("torch", "tensorflow") for name, m in sys.modules.items() if m is not None)
sys.exit(code)
"""
METHOD = {"calib_method": "max", "percentile": None, "batches": 4, "batch_size": 8, "data": "/some/where.json"}


def write_forms(checkpoint: Checkpoint, folder: Path, mode: str) -> dict[str, Path]:
    """The checkpoint as a TensorFlow bundle, a Hugging Face folder and a FasterTransformer file, with reports."""
    paths = {
        "tensorflow": folder / "tf/model.ckpt-7",
        "hugging face": folder / "hf/model.ckpt-7",
        "fastertransformer": folder / "ft/pytorch_model.bin",
    }
    report = calibration_report(checkpoint.ranges, {}, METHOD, 2, get_mode(mode))
    for path in paths.values():
        path.parent.mkdir()
        (path.parent / "calibration.json").write_text(json.dumps(report))
    write_tf_checkpoint(paths["tensorflow"], checkpoint, global_step=7)
    write_hugging_face(paths["hugging face"], checkpoint)
    pytest.importorskip("torch")
    write_fastertransformer(paths["fastertransformer"], checkpoint)
    return paths


@pytest.mark.parametrize("flags", [["--precision=fp32"], ["--precision=int8", "--int8_embeddings"], ["--precision=int8",
                                   "--target=openvino"]], ids=" ".join)  # fmt: skip
@pytest.mark.parametrize("task", TASKS)
def test_forms_of_one_checkpoint_give_equal_models(task: str, flags: list[str], tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(task, "ft2", hidden_act="gelu_new")
    models = {}
    for form, path in write_forms(checkpoint, tmp_path, "ft2").items():
        assert main(["onnx", f"--checkpoint={path}", f"--output={tmp_path}/{form}", "--nocheck", *flags]) == 0
        models[form] = (tmp_path / form / "model.onnx").read_bytes()
        assert str(tmp_path).encode() not in models[form] and b"/some/where" not in models[form]
    assert len(set(models.values())) == 1, {form: len(data) for form, data in models.items()}


def test_metadata(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("glue", "ft1")
    path = write_forms(checkpoint, tmp_path, "ft1")["hugging face"]
    assert main(["onnx", f"--checkpoint={path}", f"--output={tmp_path}/m", "--precision=int8", "--nocheck"]) == 0
    model = onnx.load(tmp_path / "m/model.onnx")
    found = {entry.key.removeprefix("twinquant."): entry.value for entry in model.metadata_props}
    assert json.loads(found["labels"]) == ["contradiction", "entailment", "neutral"]
    assert json.loads(found["ranges_source"]) == {"calib_method": "max", "batches": 4, "batch_size": 8}
    assert json.loads(found["config"])["activation"] == "gelu"
    expected = {"task": "glue", "head": "classification", "precision": "int8", "quant_mode": "ft1"}
    assert {key: found[key] for key in expected} == expected
    assert len(found["tensors_sha256"]) == len(found["ranges_sha256"]) == 64
    source = tiny_source("glue", "ft1")
    assert found["tensors_sha256"] == describe_model(source, ExportSettings(), {})["tensors_sha256"]
    source.tensors["output_bias"][0] += 1
    assert found["tensors_sha256"] != describe_model(source, ExportSettings(), {})["tensors_sha256"]


def test_calibration_report_of_other_ranges_is_not_believed(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("squad", "ft1")
    path = write_forms(checkpoint, tmp_path, "ft1")["tensorflow"]
    report = json.loads((path.parent / "calibration.json").read_text())
    report["quantizers"]["bert/final_input_quantizer"]["amax"] *= 2
    (path.parent / "calibration.json").write_text(json.dumps(report))
    flags = ["--precision=int8", "--quant_mode=ft1", "--nocheck"]
    assert main(["onnx", f"--checkpoint={path}", f"--output={tmp_path}/m", *flags]) == 0
    found = {entry.key: entry.value for entry in onnx.load(tmp_path / "m/model.onnx").metadata_props}
    assert "unknown" in json.loads(found["twinquant.ranges_source"])["calib_method"]


def test_no_framework_is_imported(tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("squad", "ft2")
    write_tf_checkpoint(tmp_path / "model.ckpt", checkpoint)
    words = ["onnx", f"--checkpoint={tmp_path}/model.ckpt", "--precision=int8", "--quant_mode=ft2"]
    root = Path(__file__).resolve().parents[2]
    outcome = subprocess.run(
        [sys.executable, "-c", BLOCKED, *words, f"--output={tmp_path}/blocked"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "not compared with its checkpoint: neither torch nor tensorflow is installed" in outcome.stderr
    assert main([*words, f"--output={tmp_path}/free", "--nocheck"]) == 0
    assert (tmp_path / "blocked/model.onnx").read_bytes() == (tmp_path / "free/model.onnx").read_bytes()


@pytest.mark.parametrize("settings", [ExportSettings(), int8("ort", int8_embeddings=True)], ids=["fp32", "int8"])
def test_the_file_holds_what_onnx_would_write(settings: ExportSettings, tmp_path: Path) -> None:
    """The message that is put together by hand, read by the onnx package."""
    source = tiny_source(mode="ort")
    ranges = source.ranges(settings.effective_mode) if settings.effective_mode else {}
    arguments = (source.tensors, source.config, source.head, None, settings, ranges, {"key": "value"})
    model = build_model(*arguments)
    assert write_model(tmp_path / "m.onnx", model) == ["m.onnx"]
    loaded = onnx.load(tmp_path / "m.onnx")
    arrays = {constant.name: numpy_helper.to_array(constant) for constant in loaded.graph.initializer}
    assert list(arrays) == list(model.constants)
    for name, array in model.constants.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name, strict=True)
    del loaded.graph.initializer[:]
    assert loaded == model.proto
    build_again = build_model(*arguments)
    write_model(tmp_path / "again.onnx", build_again)
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "m.onnx").read_bytes()


def test_a_model_that_is_too_large_for_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(export.commands, "LARGEST_MESSAGE", 60_000)
    source = tiny_source(mode="ft1")
    with caplog.at_level("INFO", "twinquant"):
        path, _ = exported(source, int8("ft1"), tmp_path / "large")
    assert "larger than 2 GB: its weights are in model.onnx.data beside it" in caplog.text
    names = sorted(file.name for file in (tmp_path / "large").iterdir())
    assert names == ["config.json", "model.onnx", "model.onnx.data"]
    assert path.stat().st_size < 60_000
    monkeypatch.undo()
    whole, _ = exported(source, int8("ft1"), tmp_path / "whole")
    feeds = model_feeds(make_batch(source.config, (9, 5)))
    results = [onnxruntime.InferenceSession(str(p)).run(None, feeds) for p in (path, whole)]
    for found, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(found, expected)
    for constant in onnx.load(path, load_external_data=False).graph.initializer:
        for entry in constant.external_data:
            assert entry.key != "offset" or int(entry.value) % 4096 == 0


def test_quarter_of_the_size(tmp_path: Path) -> None:
    """With int8 tables and kernels nearly all bytes are single ones."""
    source = tiny_source(mode="ft1", vocab_size=5000, hidden_size=128, intermediate_size=256)
    fp32, _ = exported(source, ExportSettings(), tmp_path / "fp32")
    small, _ = exported(source, int8("ft1", int8_embeddings=True), tmp_path / "int8")
    assert small.stat().st_size < 0.3 * fp32.stat().st_size
