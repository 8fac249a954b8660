"""What onnxruntime makes of the models, and what the graphs themselves promise."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from tiny_exports import LABELS, TASKS, exported, int8, optimized_operators, tiny_source

from export.kernels import kernel_use
from export.settings import ExportSettings
from export.verdict import Bounds, Verdict
from quantization.modes import MODE_NAMES

LAYERS = 2
PRODUCTS = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm")
FORMS = {"contrib": {}, "contrib for VNNI": {"vnni": True}, "portable": {"portable": True}}
ALL_SETTINGS = [
    ExportSettings(),
    ExportSettings(target="openvino", int8_embeddings=True),
    *(int8(mode, **form) for mode in MODE_NAMES for form in FORMS.values()),
    int8("ft1", target="openvino"),
    int8("ft3", target="tensorrt"),
    ExportSettings("int8-dynamic"),
    ExportSettings("int8-dynamic", portable=True, int8_embeddings=True),
]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", MODE_NAMES)
def test_every_quantized_product_runs_in_int8(mode: str, form: str, task: str, tmp_path: Path) -> None:
    path, metadata = exported(tiny_source(task, mode), int8(mode, **FORMS[form]), tmp_path)
    operators, graph = optimized_operators(path, tmp_path)
    heads = 2 if task == "glue" else 1  # the pooler and the head, which no mode quantizes
    assert sum(operators[name] for name in PRODUCTS) == heads, operators
    assert sum(operators[name] for name in ("MatMulIntegerToFloat", "QLinearMatMul", "QGemm")) == 8 * LAYERS, operators
    assert operators["SkipLayerNormalization"] == 0
    stored = {constant.name for constant in graph.initializer if np.prod(constant.dims) > 1}
    assert not [node.name for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in stored]
    use = kernel_use(path, metadata, 32)
    assert use.int8_calls == 8 * LAYERS and not use.dequantized_weights and use.int8_share > 0.99


@pytest.mark.parametrize("portable", [False, True], ids=["contrib", "portable"])
@pytest.mark.parametrize("task", TASKS)
def test_dynamic_products_run_in_int8(task: str, portable: bool, tmp_path: Path) -> None:
    path, metadata = exported(tiny_source(task), ExportSettings("int8-dynamic", portable=portable), tmp_path)
    use = kernel_use(path, metadata, 32)
    assert use.int8_calls == 6 * LAYERS and 0.5 < use.int8_share < 1.0


def test_query_key_and_value_share_one_rounding(tmp_path: Path) -> None:
    path, _ = exported(tiny_source(mode="ft1"), int8("ft1"), tmp_path)
    operators, _ = optimized_operators(path, tmp_path)
    assert (
        operators["QuantizeLinear"] == LAYERS * 7
    )  # layer input, q, k, v, probabilities, two LayerNorm or GELU outputs


@pytest.mark.parametrize("form", FORMS)
def test_rounded_scores_are_scaled_where_they_become_real(form: str, tmp_path: Path) -> None:
    """ft3 rounds the scores before 1/sqrt(d): the factor is in the scale of their DequantizeLinear, not a pass."""
    path, _ = exported(tiny_source(mode="ft3"), int8("ft3", **FORMS[form]), tmp_path)
    graph = onnx.load(path).graph
    assert not [node.name for node in graph.node if node.op_type == "Mul" and "/scores" in node.name]
    scales = {c.name: onnx.numpy_helper.to_array(c) for c in graph.initializer}
    scope = "bert/encoder/layer_0/attention/self"
    node = next(node for node in graph.node if node.name == f"{scope}/scores/DequantizeLinear")
    head_size = 8
    expected = scales[f"{scope}/softmax_input_quantizer/scale"] / np.sqrt(head_size)
    np.testing.assert_allclose(scales[node.input[1]], expected, rtol=1e-6)


def test_weights_that_are_dequantized_are_a_failure(tmp_path: Path) -> None:
    """The form that onnxruntime falls back to float32 with: signed pairs, run as for onnxruntime."""
    source = tiny_source(mode="ft1")
    path, metadata = exported(source, int8("ft1", target="openvino"), tmp_path)
    model = onnx.load(path)
    for entry in model.metadata_props:
        if entry.key == "twinquant.target":
            entry.value = "onnxruntime"
    for node in model.graph.node:  # a weight whose quantized partner is gone
        if node.op_type == "MatMul" and "query" in node.name:
            node.input[0] = next(n for n in model.graph.node if n.output[0] == node.input[0]).input[0]
            producer = next(n for n in model.graph.node if n.output[0] == node.input[0])
            node.input[0] = producer.input[0]
    onnx.save(model, path)
    from export.runtime import read_model

    verdict = Verdict(int8("ft1"), kernels=kernel_use(path, read_model(path)[1], 16), expected_int8=16)
    verdict.judge(Bounds())
    assert any("fell back to float32" in failure for failure in verdict.failures), verdict.failures
    assert any("dequantizes" in failure for failure in verdict.failures), verdict.failures


@pytest.mark.parametrize("settings", ALL_SETTINGS, ids=ExportSettings.describe)
@pytest.mark.parametrize("task", TASKS)
def test_graph(task: str, settings: ExportSettings, tmp_path: Path) -> None:
    """Valid ONNX; nothing unused; names and axes as transformers has them; no value_info."""
    mode = settings.mode.name if settings.mode else None
    path, metadata = exported(tiny_source(task, mode), settings, tmp_path)
    model = onnx.load(path)
    onnx.checker.check_model(model)
    domains = {entry.domain: entry.version for entry in model.opset_import}
    contrib = settings.precision != "fp32" and settings.target == "onnxruntime" and not settings.portable
    assert domains == ({"": 17, "com.microsoft": 1} if contrib else {"": 17}) and model.ir_version == 8
    if not contrib:
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    graph = model.graph
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    assert {name for node in graph.node for name in node.output} <= used
    assert {constant.name for constant in graph.initializer} <= used
    assert not graph.value_info
    found = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.input
    }
    assert found == {name: ["batch", "sequence"] for name in ("input_ids", "attention_mask", "token_type_ids")}
    outputs = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.output
    }
    if task == "glue":
        assert outputs == {"logits": ["batch", len(LABELS)]}
    else:
        assert outputs == {name: ["batch", "sequence"] for name in ("start_logits", "end_logits")}
    kinds = {constant.name: constant.data_type for constant in graph.initializer}
    kernels = [kind for name, kind in kinds.items() if name.startswith("bert/encoder") and name.endswith("/kernel")]
    assert kernels == [TensorProto.FLOAT if settings.precision == "fp32" else TensorProto.INT8] * (6 * LAYERS)
    assert kinds["bert/embeddings/word_embeddings"] == (
        TensorProto.INT8 if settings.int8_embeddings else TensorProto.FLOAT
    )
    assert metadata["precision"] == settings.precision
