"""A Triton model repository: its configuration against Triton's published schema, and what is never overwritten."""

import importlib.util
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from tiny_exports import exported, int8, tiny_source

import export.commands
from export.__main__ import main
from export.settings import ExportSettings
from export.triton import TritonSettings, copy_model, model_config, place_version
from twinquant.errors import UserError
from twinquant.main import run_main

# Triton's names of ONNX's types, from the table in its documentation (model_configuration.md, "Datatypes").
TYPES = {onnx.TensorProto.INT64: "TYPE_INT64", onnx.TensorProto.FLOAT: "TYPE_FP32"}


@pytest.fixture(scope="module")
def schema() -> Any:
    """Triton's message ModelConfig, generated from model_config.proto, in NVIDIA's client.

    The file alone: the package around it wants gRPC.
    """
    found = importlib.util.find_spec("tritonclient")
    if found is None or found.origin is None:
        pytest.skip("tritonclient is not installed, so there is no schema of config.pbtxt: make venv installs it")
    path = Path(found.origin).parent / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    kinds = {
        "fp32": ("squad", ExportSettings()),
        "int8": ("squad", int8("ft1")),
        "int8-8-bits": ("squad", int8("ft1", reduce_range=False, vnni=True)),
        "glue": ("glue", int8("ft1")),
        "dynamic": ("glue", ExportSettings("int8-dynamic", reduce_range=True)),
        "openvino": ("squad", int8("ft1", target="openvino")),
        "tensorrt": ("squad", int8("ft1", target="tensorrt")),
        "tensorrt-fp32": ("squad", ExportSettings(target="tensorrt")),
    }
    return {
        name: exported(tiny_source(task, "ft1"), settings, folder / name)[0] for name, (task, settings) in kinds.items()
    }


KINDS = {
    "fp32": "KIND_AUTO", "int8": "KIND_CPU", "int8-8-bits": "KIND_CPU", "glue": "KIND_CPU", "dynamic": "KIND_CPU",
    "openvino": "KIND_CPU", "tensorrt": "KIND_GPU", "tensorrt-fp32": "KIND_GPU",
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_config_says_what_the_model_is(name: str, models: dict[str, Path], schema: Any) -> None:
    """Parsed by Triton's schema, which knows no other fields; tensors as onnx itself reads them from the model."""
    settings = TritonSettings("my.model-1", 3, False, 16, 2.5, 2)
    config = text_format.Parse(model_config(models[name], settings), schema.ModelConfig())
    assert (config.name, config.platform, config.backend) == ("my.model-1", "onnxruntime_onnx", "onnxruntime")
    assert config.max_batch_size == 16 and config.dynamic_batching.max_queue_delay_microseconds == 2500
    (group,) = config.instance_group
    assert group.count == 2 and schema.ModelInstanceGroup.Kind.Name(group.kind) == KINDS[name]
    graph = onnx.load(models[name]).graph
    for found, expected in ((config.input, graph.input), (config.output, graph.output)):
        assert [tensor.name for tensor in found] == [value.name for value in expected]
        for tensor, value in zip(found, expected, strict=True):
            shape = [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim]
            assert [-1, *tensor.dims] == shape  # Triton puts the batch in front
            assert schema.DataType.Name(tensor.data_type) == TYPES[value.type.tensor_type.elem_type]
    # A head for classification has a fixed number of logits.
    assert [list(tensor.dims) for tensor in config.output] == ([[3]] if name in ("glue", "dynamic") else [[-1], [-1]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [("openvino", {"openvino": {}}), ("tensorrt", {"tensorrt": {"precision_mode": "INT8"}}),
     ("tensorrt-fp32", {"tensorrt": {"precision_mode": "FP32"}}), ("int8", {})],
    ids=["openvino", "tensorrt", "tensorrt-fp32", "onnxruntime"],
)  # fmt: skip
def test_accelerators(name: str, expected: dict, models: dict[str, Path], schema: Any) -> None:
    config = text_format.Parse(model_config(models[name], TritonSettings()), schema.ModelConfig())
    found = config.optimization.execution_accelerators
    accelerators = [*found.cpu_execution_accelerator, *found.gpu_execution_accelerator]
    assert {one.name: dict(one.parameters) for one in accelerators} == expected


@pytest.mark.parametrize("delay", [0.0, -1.0], ids=["0", "-1"])
def test_without_a_delay_dynamic_batching_is_not_configured(delay: float, models: dict[str, Path], schema: Any) -> None:
    text = model_config(models["fp32"], TritonSettings(dyn_batching_delay=delay))
    assert not text_format.Parse(text, schema.ModelConfig()).HasField("dynamic_batching")


@pytest.mark.parametrize(("name", "told"), [("int8-8-bits", True), ("int8", False), ("fp32", False)])
def test_what_triton_cannot_set_is_told(name: str, told: bool, models: dict[str, Path]) -> None:
    """8-bit weights are exact without VNNI only by a session option, which Triton's backend does not know."""
    comments = [line for line in model_config(models[name], TritonSettings()).splitlines() if line.startswith("#")]
    assert ("session.x64quantprecision=1" in " ".join(comments)) == told


def place(models: dict[str, Path], name: str, repository: Path, **changes: Any) -> list[Path]:
    return place_version(repository, TritonSettings(**changes), partial(copy_model, models[name]))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_repository(models: dict[str, Path], tmp_path: Path) -> None:
    written = place(models, "int8", tmp_path / "r")
    assert sorted(content(tmp_path / "r")) == ["bert/1/config.json", "bert/1/model.onnx", "bert/config.pbtxt"]
    assert {str(path.relative_to(tmp_path / "r")) for path in written} == set(content(tmp_path / "r"))
    assert (tmp_path / "r/bert/1/model.onnx").read_bytes() == models["int8"].read_bytes()
    place(models, "int8", tmp_path / "r", model_version=2)
    place(models, "glue", tmp_path / "r", model_name="mrpc", max_batch_size=4)
    assert sorted(path.parent.name for path in (tmp_path / "r").rglob("model.onnx")) == ["1", "1", "2"]


REFUSED = {
    "the same version": ({}, r"r/bert/1 is there already: choose another name or version, or have it replaced \("),
    "other settings": ({"model_version": 2, "max_batch_size": 4}, "r/bert/config.pbtxt is another one than this"),
}


@pytest.mark.parametrize(("changes", "sentence"), REFUSED.values(), ids=REFUSED)
def test_nothing_is_overwritten(changes: dict, sentence: str, models: dict[str, Path], tmp_path: Path) -> None:
    place(models, "int8", tmp_path / "r")
    before = content(tmp_path / "r")
    with pytest.raises(UserError, match=sentence):
        place(models, "int8", tmp_path / "r", **changes)
    assert content(tmp_path / "r") == before
    assert not [path.name for path in (tmp_path / "r/bert").iterdir() if path.name.endswith(".tmp")]


def test_a_model_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        raise UserError("it fails its check")

    with pytest.raises(UserError, match="it fails its check"):
        place_version(tmp_path / "new/r", TritonSettings(), fill)
    assert not list(tmp_path.iterdir())


def test_overwrite_replaces_the_whole_version(models: dict[str, Path], tmp_path: Path) -> None:
    """Also by another model, whose files in a common folder `export onnx` would refuse."""
    place(models, "int8", tmp_path / "r")
    (tmp_path / "r/bert/1/left.txt").write_text("of the model that was there")
    place(models, "glue", tmp_path / "r", model_overwrite=True, max_batch_size=2)
    place(models, "glue", tmp_path / "fresh", max_batch_size=2)
    assert content(tmp_path / "r") == content(tmp_path / "fresh")


def test_a_model_in_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data keeps the name that the model tells, although the model's own changes."""
    monkeypatch.setattr(export.commands, "LARGEST_MESSAGE", 10_000)
    export.commands.export_model(tiny_source(), ExportSettings(), tmp_path / "large.onnx")
    place_version(tmp_path / "r", TritonSettings(), partial(copy_model, tmp_path / "large.onnx"))
    assert (tmp_path / "r/bert/1/large.onnx.data").is_file()
    ids = np.ones((2, 5), np.int64)
    feeds = {"input_ids": ids, "attention_mask": ids, "token_type_ids": ids}
    (tmp_path / "large.onnx").rename(tmp_path / "renamed.onnx")
    place_version(tmp_path / "q", TritonSettings(), partial(copy_model, tmp_path / "renamed.onnx"))
    assert (tmp_path / "q/bert/1/large.onnx.data").is_file()
    paths = (tmp_path / "renamed.onnx", tmp_path / "r/bert/1/model.onnx")
    one, other = (onnxruntime.InferenceSession(str(path)).run(None, feeds) for path in paths)
    assert all((a == b).all() for a, b in zip(one, other, strict=True))


def test_the_command(models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["triton", f"--model={models['int8'].parent}", f"--output={tmp_path}/r", "--model_name=qa"]
    assert main([*words, "--dyn_batching_delay=0.5", "--engine_count=2", "--max_batch_size=32"]) == 0
    assert f"wrote {tmp_path}/r/qa/config.pbtxt" in capsys.readouterr().out
    expected = model_config(models["int8"], TritonSettings("qa", 1, False, 32, 0.5, 2))
    assert (tmp_path / "r/qa/config.pbtxt").read_text() == expected


MISTAKES = {
    "--output={r}": "--model is required: the exported model",
    "--model={m}": "--output is required: the model repository",
    "--model={r} --output={r}": "--model names .*model.onnx, which is not a file; expected a model that",
    "--model={m} --output={r} --model_name=a/b": "--model_name takes letters, digits, '_', '-' and '.', found 'a/b'",
    "--model={m} --output={r} --model_version=0": "--model_version takes a whole number",
    "--model={m} --output={m}/model.onnx": "the folder .*model.onnx/bert cannot be made: Not a directory",
}


@pytest.mark.parametrize(("words", "expected"), MISTAKES.items(), ids=MISTAKES)
def test_mistakes(
    words: str, expected: str, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = words.format(r=tmp_path / "r", m=models["int8"].parent).split()
    assert run_main(main, "python -m export", ["triton", *filled]) == 2
    printed = capsys.readouterr()
    assert re.search(expected, printed.err) and not printed.out, printed.err
    assert not (tmp_path / "r").exists()
