"""An exported model under OpenVINO: predicting, and which of its products run in int8."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from export.runtime import model_feeds
from twinquant.errors import UserError

_PRODUCTS = ("FullyConnected", "MatMul", "ScaledDotProductAttention")
_INT8 = ("i8", "u8")


class OpenVinoPredictor:
    """Predicts with a model file on the CPU; see `training.prediction.Predictor`.

    Tuned for latency, and in float32 where nothing is quantized: by itself OpenVINO computes in bfloat16 where the CPU
    can, which no other row does.
    """

    def __init__(self, path: str | Path, threads: int = 0) -> None:
        """threads: 0: one per core. Raises UserError where OpenVINO is missing or cannot load the model."""
        self.model = compile_model(path, threads)
        self.outputs = [output.get_any_name() for output in self.model.outputs]

    def predict(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Logits by name, float32, for int32 input_ids, input_mask and segment_ids [B, S]."""
        found = self.model(model_feeds(batch))
        return {name: np.array(found[index]) for index, name in enumerate(self.outputs)}


def compile_model(path: str | Path, threads: int = 0, shape: tuple[int, int] | None = None):
    """The model compiled for the CPU; shape: [B, S] to compile for, by default any."""
    try:
        import openvino
    except ImportError as error:
        raise UserError("openvino is not installed; pip install '.[openvino]' installs it") from error
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    try:
        core = openvino.Core()
        model = core.read_model(str(path))
        if shape is not None:
            model.reshape({port.get_any_name(): list(shape) for port in model.inputs})
        return core.compile_model(model, "CPU", settings | {"INFERENCE_NUM_THREADS": threads})
    except RuntimeError as error:
        reason = str(error).strip().splitlines()
        raise UserError(f"OpenVINO cannot load {path}: {reason[-1] if reason else 'it gives no reason'}") from error


def int8_share(path: str | Path, positions: int = 128) -> float:
    """int8 multiplications as a share of all, 0 to 1, of one row of `positions` tokens.

    Counted on the graph that OpenVINO says it runs, whose products name their precision.
    """
    multiplications = {True: 0, False: 0}
    for operator in compile_model(path, 1, (1, positions)).get_runtime_model().get_ordered_ops():
        facts = operator.get_rt_info()
        if _text(facts, "layerType") in _PRODUCTS:
            summed = operator.input(0).get_shape()[-1]
            multiplications[_text(facts, "runtimePrecision") in _INT8] += math.prod(operator.output(0).shape) * summed
    total = sum(multiplications.values())
    return multiplications[True] / total if total else 0.0


def _text(facts: Mapping, name: str) -> str:
    value = facts[name]
    return value.astype(str) if hasattr(value, "astype") else str(value)
