"""An exported model under onnxruntime, predicting as a backend does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.cpu import has_vnni
from export.integrity import check_external, check_graph
from export.metadata import Metadata, read_metadata
from twinquant.errors import UserError

if TYPE_CHECKING:
    import onnx

# Session options of a model's own, see `session_options`.
_NO_QUANTIZED_FUSION = "session.disable_quant_qdq"
EXACT_WITHOUT_VNNI = "session.x64quantprecision"
# Weights by themselves: onnxruntime's pool of memory grows in powers of two, and keeps what it read the file into.
_NO_POOL_FOR_WEIGHTS = "session.use_device_allocator_for_initializers"


def read_model(path: str | Path) -> tuple[onnx.ModelProto, Metadata]:
    """The model's message, with its large constants left in the file (`export.model_outline`), and its metadata.

    Raises UserError for a file that cannot be read, is no ONNX model, is cut off, or was written by something else.
    """
    # Imported here because running a model needs no onnx, whose memory would count as the model's in a comparison.
    from google.protobuf.message import DecodeError

    from export.model_outline import read_outline

    try:
        proto = read_outline(path)
    except OSError as error:
        raise UserError(f"cannot read the model {path}: {error.strerror}") from error
    except (DecodeError, ValueError) as error:
        raise UserError(f"{path} is damaged, cut off or no ONNX file: it cannot be decoded") from error
    if not proto.HasField("graph") or not proto.graph.node:
        raise UserError(f"{path} is no ONNX model: it holds no graph")
    check_graph(proto, str(path))
    check_external(proto, Path(path))
    return proto, read_metadata({entry.key: entry.value for entry in proto.metadata_props}, str(path))


def import_onnxruntime() -> Any:
    """The module; UserError where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("onnxruntime is not installed; pip install '.[export]' installs it") from error
    return onnxruntime


def session_entries(metadata: Metadata, cpu: str = "this") -> dict[str, str]:
    """onnxruntime's session options, by name, that the model's numbers depend on; see `session_options`.

    Args:
        cpu: where the model will run, see `export.cpu.has_vnni`.
    """
    if metadata["target"] != "onnxruntime":
        return {_NO_QUANTIZED_FUSION: "1"}
    # Not with VNNI: onnxruntime 1.31.1 heeds the option there as well, and its kernels for unsigned weights, which make
    # no use of VNNI, then need twice the time for the same integers.
    if metadata.flag("reduce_range") or has_vnni(cpu):
        return {}
    return {EXACT_WITHOUT_VNNI: "1"}


def session_options(metadata: Metadata, threads: int = 0, lean: bool = False):
    """How the model is to be run for its numbers to be those of its checkpoint.

    A model for OpenVINO or TensorRT runs as it is written, each rounding by itself: onnxruntime's own fusion of signed
    pairs is not what those runtimes do. int8 weights of 8 bits are multiplied exactly, on CPUs without VNNI too.

    Args:
        threads: threads within an operator; 0: one per core.
        lean: needs less memory than a session as users open it.
    """
    options = import_onnxruntime().SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if lean:
        options.add_session_config_entry(_NO_POOL_FOR_WEIGHTS, "1")
    for name, value in session_entries(metadata).items():
        options.add_session_config_entry(name, value)
    return options


def open_session(path: str | Path, options, called: str | Path | None = None):
    """An onnxruntime session on the CPU; UserError where onnxruntime is missing or cannot load the model.

    Args:
        called: the file that a message names, where `path` is made from it.
    """
    onnxruntime = import_onnxruntime()
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no public class
        reason = str(error).strip().splitlines()
        raise UserError(
            f"onnxruntime cannot load {called or path}: {reason[0] if reason else type(error).__name__}"
        ) from error


def run_session(session, batch: Mapping[str, np.ndarray], path: str | Path) -> list[np.ndarray]:
    """What a session of the model `path` gives for a batch; UserError where onnxruntime cannot run it."""
    try:
        outputs: list[np.ndarray] = session.run(None, model_feeds(batch))
    except Exception as error:  # onnxruntime's exceptions share no public class
        reason = str(error).strip().splitlines()
        raise UserError(f"onnxruntime cannot run {path}: {reason[0] if reason else type(error).__name__}") from error
    return outputs


def model_feeds(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A batch as the exported models take it: int64 under transformers' names."""
    names = {"input_ids": "input_ids", "attention_mask": "input_mask", "token_type_ids": "segment_ids"}
    return {name: np.asarray(batch[ours], np.int64) for name, ours in names.items()}


class OnnxPredictor:
    """Predicts with a model file; see `training.prediction.Predictor`. Arguments: see `session_options`."""

    def __init__(self, path: str | Path, metadata: Metadata, threads: int = 0, lean: bool = False) -> None:
        self.path = path
        self.session = open_session(path, session_options(metadata, threads, lean))
        self.outputs = [output.name for output in self.session.get_outputs()]

    def predict(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Logits by name, float32, for int32 input_ids, input_mask and segment_ids [B, S]."""
        return dict(zip(self.outputs, run_session(self.session, batch, self.path), strict=True))
