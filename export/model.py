"""From tensors and ranges to a complete ONNX model in memory."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, helper

from checkpoints.config import BertConfig
from export.builder import CONTRIB, GraphBuilder
from export.contrib_form import ContribForm
from export.dynamic_form import DynamicForm
from export.embeddings import Int8Tables, Tables
from export.form import Form
from export.graph import INPUTS, BertGraph, output_shapes
from export.grids import make_grids
from export.portable_form import PortableForm
from export.settings import ExportSettings
from export.signed_form import SignedForm
from twinquant import __version__

# Opset 17 is the first with LayerNormalization; every operator used has been the same since. IR version 8 is its pair.
OPSET = 17
IR_VERSION = 8


@dataclass
class OnnxModel:
    """A model: `proto` without the constants' data, and the `constants` by name in the order of their first use."""

    proto: ModelProto
    constants: dict[str, np.ndarray]

    @property
    def constant_bytes(self) -> int:
        return sum(array.nbytes for array in self.constants.values())


def build_model(
    tensors: Mapping[str, np.ndarray],
    config: BertConfig,
    head: str,
    num_labels: int | None,
    settings: ExportSettings,
    ranges: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
) -> OnnxModel:
    """Writes BERT with its head in the form that the settings ask for.

    Args:
        tensors: float32 by canonical name, complete (`training.initialization.complete_tensors`).
        ranges: those that `settings.effective_mode` needs (`quantization.ranges.select_ranges`).
        metadata: becomes the model's metadata_props.
    """
    builder = GraphBuilder()
    form = _make_form(builder, tensors, config, settings, ranges)
    tables = (Int8Tables if settings.int8_embeddings else Tables)(builder, tensors)
    BertGraph(builder, config, form, tables).build(head)
    graph = builder.graph("bert", INPUTS, output_shapes(head, num_labels))
    opsets = [helper.make_opsetid("", OPSET)]
    if any(node.domain == CONTRIB for node in builder.nodes):
        opsets.append(helper.make_opsetid(CONTRIB, 1))
    proto = helper.make_model(
        graph,
        ir_version=IR_VERSION,
        opset_imports=opsets,
        producer_name="twinquant",
        producer_version=__version__,
    )
    helper.set_model_props(proto, dict(metadata))
    return OnnxModel(proto, builder.constants)


def _make_form(
    builder: GraphBuilder,
    tensors: Mapping[str, np.ndarray],
    config: BertConfig,
    settings: ExportSettings,
    ranges: Mapping[str, np.ndarray],
) -> Form:
    mode = settings.effective_mode
    grids = make_grids(mode, ranges, config.num_hidden_layers) if mode else {}
    if settings.precision == "int8-dynamic":
        return DynamicForm(builder, tensors, 7 if settings.reduce_range else 8, settings.portable)
    if settings.target != "onnxruntime":
        return SignedForm(builder, tensors, grids)
    if settings.precision == "fp32":
        return Form(builder, tensors, grids)
    if settings.portable:
        return PortableForm(builder, tensors, grids)
    return ContribForm(builder, tensors, grids, signed_attention=settings.vnni)
