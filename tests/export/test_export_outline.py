"""A model file read without its weights: the message is the same, and they are found in the file."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_exports import int8, tiny_source

from checkpoints.protobuf_wire import bytes_field
from export.check import make_reference
from export.commands import export_model
from export.model_outline import read_outline
from export.settings import ExportSettings


@pytest.mark.parametrize("settings", [ExportSettings(), int8("ft3")], ids=["fp32", "int8"])
def test_the_outline_is_the_model(settings: ExportSettings, tmp_path: Path) -> None:
    export_model(tiny_source(mode="ft3"), settings, tmp_path)
    path = tmp_path / "model.onnx"
    whole, outline = onnx.load(path), read_outline(path)
    assert len(outline.SerializeToString()) < len(whole.SerializeToString())
    for one, other in zip(whole.graph.initializer, outline.graph.initializer, strict=True):
        assert (one.name, one.data_type, one.dims) == (other.name, other.data_type, other.dims)
        assert np.array_equal(numpy_helper.to_array(one), numpy_helper.to_array(other, str(tmp_path)))
        assert bool(other.external_data) == (len(one.raw_data) >= 1024)
    for message in (whole, outline):
        del message.graph.initializer[:]
    assert whole == outline


def model(*constants: TensorProto) -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "graph", [value], [value], constants)
    return helper.make_model(graph)


def test_constants_that_are_no_plain_long_data_stay_in_the_message(tmp_path: Path) -> None:
    long = np.zeros(1024, np.float32)
    external = numpy_helper.from_array(long, "external")
    external.ClearField("raw_data")
    external.data_location = TensorProto.EXTERNAL
    external.external_data.add(key="location", value="other")
    floats = helper.make_tensor("floats", TensorProto.FLOAT, [1024], long)
    expected = model(numpy_helper.from_array(long[:10], "short"), external, floats)
    (tmp_path / "m").write_bytes(expected.SerializeToString())
    assert read_outline(tmp_path / "m") == expected


def test_a_message_in_two_parts_is_put_together(tmp_path: Path) -> None:
    """As protocol buffers ask for: a second graph adds to the first."""
    data = np.arange(1024, dtype=np.float32)
    whole = model(numpy_helper.from_array(data, "first"))
    more = onnx.GraphProto(initializer=[numpy_helper.from_array(-data, "second")]).SerializeToString()
    (tmp_path / "m").write_bytes(whole.SerializeToString() + bytes_field(7, more))
    found = read_outline(tmp_path / "m").graph.initializer
    assert [constant.name for constant in found] == ["first", "second"]
    for constant, expected in zip(found, (data, -data), strict=True):
        assert np.array_equal(numpy_helper.to_array(constant, str(tmp_path)), expected)


@pytest.mark.parametrize("cut", [1, 500, 4000])
def test_a_file_that_is_cut_off_is_told(cut: int, tmp_path: Path) -> None:
    content = model(numpy_helper.from_array(np.zeros(1024, np.float32), "c")).SerializeToString()
    (tmp_path / "m").write_bytes(content[:-cut])
    with pytest.raises(ValueError, match="cut off"):
        read_outline(tmp_path / "m")


@pytest.mark.parametrize("settings", [ExportSettings(), int8("ft2", int8_embeddings=True)], ids=["fp32", "int8"])
def test_a_reference_that_uses_its_source_up_is_the_same(settings: ExportSettings) -> None:
    pytest.importorskip("torch")
    source = tiny_source(mode="ft2")
    expected = make_reference(source, settings, "pytorch")
    found = make_reference(source, settings, "pytorch", use_up=True)
    assert source.tensors == {} == source.checkpoint.tensors
    assert set(found.ranges()) == set(expected.ranges())
    theirs = expected.tensors()
    for name, tensor in found.tensors().items():
        assert np.array_equal(tensor, theirs[name])
