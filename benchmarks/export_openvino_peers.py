"""OpenVINO: fp32, what its own quantizer (NNCF) makes of the same model, and our model of `--target openvino`.

All three take batches of any size, as an exported model does. NNCF's post-training quantization is run as its
documentation says for BERT: model type TRANSFORMER, on the plain fp32 ONNX model.
"""

import contextlib
import importlib.util
import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from backends.base import Batch
from benchmarks.steps import random_batch
from benchmarks.turns import FLOAT, OPENVINO, Runner
from checkpoints.config import BertConfig
from export.runtime import model_feeds

FP32, NNCF, SIGNED = "OpenVINO fp32", "OpenVINO NNCF int8", "OpenVINO, ours ft1 --target openvino"
OPENVINO_FLOAT = f"{FLOAT}, openvino"  # apart from onnxruntime's, whose fastest is the baseline
OPENVINO_OURS = "ours on openvino"


def left_out() -> list[str]:
    """What cannot be measured because it is not installed, a sentence each."""
    missing = [name for name in ("openvino", "nncf") if importlib.util.find_spec(name) is None]
    return [f"OpenVINO and NNCF: {missing[0]} is not installed (pip install '.[peers]')"] if missing else []


def open_models(plain: Path, signed: Path, config: BertConfig, threads: int) -> Callable[[Batch], list[Runner]]:
    """Gives runners for a batch.

    Args:
        plain: the fp32 ONNX model. signed: our int8 model of target openvino.
    """
    with _quiet():
        import openvino

        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        models = {
            FP32: (OPENVINO_FLOAT, core.read_model(plain)),
            NNCF: (OPENVINO, _quantize(core.read_model(plain), config)),
            SIGNED: (OPENVINO_OURS, core.read_model(signed)),
        }
        requests = {
            name: (group, core.compile_model(model, "CPU", settings).create_infer_request())
            for name, (group, model) in models.items()
        }

    def runners(batch: Batch) -> list[Runner]:
        feeds = model_feeds(batch)
        return [
            Runner(name, group, lambda request=request: request.infer(feeds))
            for name, (group, request) in requests.items()
        ]

    return runners


def _quantize(model: Any, config: BertConfig) -> Any:
    import nncf

    batches = [model_feeds(random_batch(config, 1, 64))] * 4
    return nncf.quantize(
        model,
        nncf.Dataset(batches),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(batches),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without NNCF's progress bars."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
