"""Rules that a signed model for OpenVINO or TensorRT keeps, checked on the finished graph."""

from collections.abc import Mapping

import numpy as np
from onnx import GraphProto, NodeProto

from export.builder import CONTRIB

_PRODUCTS = ("MatMul", "Gemm")


def check_rules(graph: GraphProto, constants: Mapping[str, np.ndarray], target: str) -> None:
    """Raises ValueError with all broken rules; see `broken_rules`."""
    broken = broken_rules(graph, constants, target)
    if broken:
        raise ValueError(f"the model breaks rules of {target}: {'; '.join(broken)}")


def broken_rules(graph: GraphProto, constants: Mapping[str, np.ndarray], target: str) -> list[str]:
    """What a model for `target` ("openvino" or "tensorrt") does that the runtime does not want: one sentence each.

    Standard operators only; every scale positive and finite; every zero point 0, of type int8 (OpenVINO also takes
    uint8 for tensors that are never negative); integers from a QuantizeLinear go into DequantizeLinear with the same
    scale, and nowhere else; int8 weights of a product have a scale for the whole tensor or one per output channel.

    Args:
        constants: the graph's constants by name; the graph need not hold them.
    """
    broken = [f"{node.name} is not a standard operator" for node in graph.node if node.domain in (CONTRIB,)]
    consumers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and (len(node.input) < 2 or not node.output):
            broken.append(f"{node.name} has {len(node.input)} inputs and {len(node.output)} outputs")
            continue
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            broken += _broken_by_parameters(node, constants, target)
        if node.op_type == "QuantizeLinear":
            broken += _broken_by_consumers(node, consumers, constants)
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            for consumer in consumers.get(node.output[0], []):
                broken += _broken_by_axis(node, consumer, constants)
    return broken


def _broken_by_parameters(node: NodeProto, constants: Mapping[str, np.ndarray], target: str) -> list[str]:
    scale, zero_point = constants.get(node.input[1]), constants.get(node.input[2]) if len(node.input) > 2 else None
    broken = []
    if scale is None or zero_point is None:
        return [f"{node.name} has no constant scale and zero point"]
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        broken.append(f"the scale of {node.name} is not positive")
    if np.any(zero_point):
        broken.append(f"the zero point of {node.name} is not 0")
    unsigned = target == "openvino" and zero_point.dtype == np.uint8
    if zero_point.dtype != np.int8 and not unsigned:
        broken.append(f"the integers of {node.name} are {zero_point.dtype}, not int8")
    return broken


def _broken_by_consumers(
    node: NodeProto, consumers: Mapping[str, list[NodeProto]], constants: Mapping[str, np.ndarray]
) -> list[str]:
    users = consumers.get(node.output[0], [])
    broken = [] if users else [f"nothing uses {node.name}"]
    for user in users:
        if user.op_type != "DequantizeLinear" or len(user.input) < 2:
            broken.append(f"{user.name} uses the integers of {node.name}, which only a DequantizeLinear may")
        elif not np.array_equal(constants.get(user.input[1], np.nan), constants.get(node.input[1], np.nan)):
            broken.append(f"{user.name} has another scale than {node.name}")
    return broken


def _broken_by_axis(node: NodeProto, consumer: NodeProto, constants: Mapping[str, np.ndarray]) -> list[str]:
    """Weights of a product a @ w are [in, out], so that their channels run along axis 1."""
    weights, scale = constants[node.input[0]], constants.get(node.input[1])
    if consumer.op_type not in _PRODUCTS or scale is None or scale.ndim == 0:
        return []
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    if consumer.input[1] != node.output[0] or axis != 1 or scale.shape != (weights.shape[1],):
        return [f"{node.name} has scales {list(scale.shape)} along axis {axis}, not one per output channel"]
    return []
