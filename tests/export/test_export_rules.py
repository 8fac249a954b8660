"""The rules of models for OpenVINO and TensorRT: kept by what is written, and seen where they are broken."""

from collections.abc import Callable

import numpy as np
import pytest
from onnx import GraphProto, helper
from tiny_exports import TASKS, int8, tiny_source

from export.model import OnnxModel, build_model
from export.rules import broken_rules, check_rules
from quantization.modes import MODE_NAMES

Constants = dict[str, np.ndarray]
QUERY = "bert/encoder/layer_0/attention/self/query"


def build(mode: str = "ft1", task: str = "squad", **settings) -> OnnxModel:
    source, chosen = tiny_source(task, mode), int8(mode, **({"target": "openvino"} | settings))
    assert chosen.effective_mode is not None
    ranges = source.ranges(chosen.effective_mode)
    return build_model(source.tensors, source.config, source.head, source.num_labels, chosen, ranges, {})


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("mode", MODE_NAMES)
def test_what_is_written_keeps_them(mode: str, task: str) -> None:
    model = build(mode, task)
    assert broken_rules(model.proto.graph, model.constants, "openvino") == []
    if mode != "ort":
        assert broken_rules(model.proto.graph, model.constants, "tensorrt") == []


def test_unsigned_probabilities_are_not_for_tensorrt() -> None:
    model = build("ort")
    broken = broken_rules(model.proto.graph, model.constants, "tensorrt")
    assert len(broken) == 4 and all("are uint8, not int8" in rule for rule in broken)


def test_all_operands_of_products_are_rounded() -> None:
    """6 weights and 8 activations per layer behind DequantizeLinear, in ft1 no more."""
    graph = build("ft1").proto.graph
    dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    moved = {node.output[0] for node in graph.node if node.op_type in ("Reshape", "Transpose")}
    products = [node for node in graph.node if node.op_type == "MatMul" and "cls/" not in node.name]
    assert len(products) == 16 and all(set(node.input) <= dequantized | moved for node in products)
    assert sum(node.op_type == "QuantizeLinear" for node in graph.node) == 2 * 8
    weights = [
        node
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.name.endswith("kernel/DequantizeLinear")
    ]
    assert len(weights) == 12 and all(node.attribute[0].i == 1 for node in weights)


def test_formats_of_onnxruntime_break_them() -> None:
    for form, expected in (({}, "is not a standard operator"), ({"portable": True}, "zero point")):
        model = build("ft1", target="onnxruntime", **form)
        assert any(expected in rule for rule in broken_rules(model.proto.graph, model.constants, "openvino"))
        with pytest.raises(ValueError, match="the model breaks rules of tensorrt: "):
            check_rules(model.proto.graph, model.constants, "tensorrt")


def _scale(graph: GraphProto, constants: Constants) -> None:
    constants[f"{QUERY}/kernel/scale"][3] = 0


def _infinite(graph: GraphProto, constants: Constants) -> None:
    constants[f"{QUERY}/input_quantizer/scale"] = np.float32(np.inf)


def _zero_point(graph: GraphProto, constants: Constants) -> None:
    constants[f"{QUERY}/input_quantizer/zero_point"] = np.int8(1)


def _axis(graph: GraphProto, constants: Constants) -> None:
    node = next(node for node in graph.node if node.name == f"{QUERY}/kernel/DequantizeLinear")
    node.attribute[0].i = 0


def _lonely(graph: GraphProto, constants: Constants) -> None:
    for node in graph.node:
        if node.name.startswith("bert/encoder/layer_0/attention/self/matmul_q") and node.op_type == "DequantizeLinear":
            node.op_type = "Cast"


def _other_scale(graph: GraphProto, constants: Constants) -> None:
    constants["other"] = np.float32(0.5)
    node = next(node for node in graph.node if node.name == f"{QUERY}/input_quantizer/DequantizeLinear")
    node.input[1] = "other"


def _unused(graph: GraphProto, constants: Constants) -> None:
    inputs = ["input_ids", f"{QUERY}/input_quantizer/scale", f"{QUERY}/input_quantizer/zero_point"]
    graph.node.append(helper.make_node("QuantizeLinear", inputs, ["lost"], name="lost"))


def _no_constant(graph: GraphProto, constants: Constants) -> None:
    del constants[f"{QUERY}/input_quantizer/scale"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_scale, "the scale of .*/query/kernel/DequantizeLinear is not positive"),
        (_infinite, "the scale of .* is not positive"),
        (_zero_point, "the zero point of .* is not 0"),
        (_axis, r"query/kernel/DequantizeLinear has scales \[32\] along axis 0, not one per output channel"),
        (_lonely, "uses the integers of .*, which only a DequantizeLinear may"),
        (_other_scale, "has another scale than"),
        (_unused, "nothing uses lost"),
        (_no_constant, "has no constant scale and zero point"),
    ],
)
def test_broken_rules_are_seen(change: Callable[[GraphProto, Constants], None], expected: str) -> None:
    model = build("ft1")
    change(model.proto.graph, model.constants)
    with pytest.raises(ValueError, match=expected):
        check_rules(model.proto.graph, model.constants, "openvino")
