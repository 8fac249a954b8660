"""A row's model, opened in the process that measures it: every runtime as something that predicts.

Nothing is imported here that a runtime does not need: its memory would count as the row's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from training.prediction import Predictor


@dataclass(frozen=True)
class ModelSpec:
    """What a process has to open.

    runtime: "pytorch", "tensorflow", "onnxruntime" or "openvino". path: a checkpoint of the two backends, a folder of
    `DynamicModel.save` (`dynamic`), a .onnx file. quant_mode: of a backend, None for fp32, and the
    quantizers left in float. task, config_file: of
    `load_source`. session: of an ONNX model, the metadata that `export.runtime.session_options` asks for.
    """

    runtime: str
    path: str
    dynamic: bool = False
    quant_mode: str | None = None
    quant_exclude: list[str] = field(default_factory=list)
    task: str = "auto"
    config_file: str | None = None
    session: dict[str, str] = field(default_factory=dict)


def open_model(spec: ModelSpec, threads: int) -> Predictor:
    """Opens the model with that many threads.

    Raises UserError where the framework is not installed or cannot open it.
    """
    if spec.runtime == "onnxruntime":
        from export.metadata import Metadata
        from export.runtime import OnnxPredictor

        return OnnxPredictor(spec.path, Metadata(spec.session), threads)
    if spec.runtime == "openvino":
        from export.compare.openvino_model import OpenVinoPredictor

        return OpenVinoPredictor(spec.path, threads)
    if spec.runtime == "pytorch":
        import torch

        torch.set_num_threads(threads)
    else:
        from backends.tensorflow import tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    return _open_dynamic(spec) if spec.dynamic else _open_backend(spec)


def _open_dynamic(spec: ModelSpec) -> Predictor:
    from backends.pytorch.dynamic import DynamicModel

    return DynamicModel.load(spec.path)


def _open_backend(spec: ModelSpec) -> Predictor:
    from backends import create_backend
    from backends.base import RuntimeSettings
    from export.source import load_source
    from twinquant.memory import keep_freed_memory

    keep_freed_memory()  # as the scripts do
    source = load_source(spec.path, spec.task, spec.config_file)
    settings = RuntimeSettings(device="cpu")
    backend = create_backend(spec.runtime, source.config, source.head, runtime=settings, num_labels=source.num_labels)
    backend.load(source.tensors)
    if spec.quant_mode is not None:
        mode = source.choose_mode(spec.quant_mode, spec.quant_exclude)
        backend.set_quantization(mode, source.ranges(mode))
    return backend
