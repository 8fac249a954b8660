"""Which kernels onnxruntime runs a model with: the share of multiplications in int8, and silent falls to float32."""

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from export.grids import Grid
from export.metadata import Metadata
from export.runtime import open_session, run_session, session_options

_INT8 = ("MatMulIntegerToFloat", "QLinearMatMul", "QGemm", "MatMulInteger", "DynamicQuantizeMatMul", "QAttention")
_FLOAT = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "Attention", "MultiHeadAttention", "MatMulNBits")


@dataclass
class KernelUse:
    """What a model's products ran on.

    `calls` and `multiplications` by operator, of one forward pass; `dequantized_weights`: the DequantizeLinear of
    stored weights that onnxruntime runs on every call.
    """

    calls: dict[str, int] = field(default_factory=dict)
    multiplications: dict[str, int] = field(default_factory=dict)
    dequantized_weights: list[str] = field(default_factory=list)

    @property
    def int8_calls(self) -> int:
        return sum(count for operator, count in self.calls.items() if operator in _INT8)

    @property
    def int8_share(self) -> float:
        """int8 multiplications as a share of all, 0 to 1."""
        total = sum(self.multiplications.values())
        return sum(n for operator, n in self.multiplications.items() if operator in _INT8) / total if total else 0.0


def kernel_use(path: str | Path, metadata: Metadata, positions: int = 128) -> KernelUse:
    """Runs one row of `positions` tokens and counts the products that onnxruntime's optimized graph ran."""
    batch = dict.fromkeys(("input_ids", "input_mask", "segment_ids"), np.zeros((1, positions), np.int32))
    batch["input_mask"] = np.ones((1, positions), np.int32)
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(metadata, threads=1, lean=True)
        if metadata["precision"] != "fp32":
            options.optimized_model_filepath = str(Path(folder, "optimized.onnx"))
        # Constants apart: the optimized model must be readable where the model itself was too large for one file.
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "optimized.data")
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = open_session(path, options)
        run_session(session, batch, path)
        events = json.loads(Path(session.end_profiling()).read_text())
        use = KernelUse()
        if options.optimized_model_filepath:
            graph = onnx.load(options.optimized_model_filepath, load_external_data=False).graph
            use.dequantized_weights = _dequantized_weights(graph)
    for event in events:
        arguments = event.get("args", {})
        operator = arguments.get("op_name")
        if event.get("cat") != "Node" or operator not in _INT8 + _FLOAT or not event["name"].endswith("_kernel_time"):
            continue
        use.calls[operator] = use.calls.get(operator, 0) + 1
        count = _multiplications(operator, arguments)
        use.multiplications[operator] = use.multiplications.get(operator, 0) + count
    return use


def expected_int8_products(precision: str, layers: int, grids: Mapping[str, Grid]) -> int:
    """How many products a model has whose operands are both quantized."""
    if precision == "int8-dynamic":
        return 6 * layers
    dense = ("attention/self/query", "attention/self/key", "attention/self/value", "attention/output/dense",
             "intermediate/dense", "output/dense")  # fmt: skip
    pairs = [(f"{name}/input_quantizer", f"{name}/kernel_quantizer") for name in dense]
    pairs += [(f"attention/self/matmul_{a}_input_quantizer", f"attention/self/matmul_{b}_input_quantizer")
              for a, b in ("qk", "av")]  # fmt: skip
    return sum(
        f"bert/encoder/layer_{layer}/{a}" in grids and f"bert/encoder/layer_{layer}/{b}" in grids
        for layer in range(layers)
        for a, b in pairs
    )


def _dequantized_weights(graph: onnx.GraphProto) -> list[str]:
    stored = {constant.name for constant in graph.initializer if math.prod(constant.dims) > 1}
    return [node.name for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in stored]


def _multiplications(operator: str, arguments: Mapping) -> int:
    """Multiplications of one call from the shapes it was given: elements of the result times the summed length."""
    shapes = [next(iter(entry.values())) for entry in arguments["input_type_shape"]]
    outputs = [next(iter(entry.values())) for entry in arguments["output_type_shape"]]
    left = shapes[0]
    return math.prod(outputs[0]) * left[-1]
