"""Tiny checkpoints with ranges, and their models under onnxruntime: what the tests of export/ share."""

import collections
import re
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from tiny_bert import make_backend, tiny_config, tiny_tensors

from backends.base import Backend
from checkpoints.config import BertConfig
from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING
from checkpoints.value import Checkpoint
from export.check import make_reference
from export.commands import export_model
from export.metadata import Metadata
from export.runtime import OnnxPredictor, read_model
from export.settings import ExportSettings
from export.source import Source, make_source
from quantization.calibration import weight_amax
from quantization.modes import Mode, all_quantizers, get_mode
from quantization.ranges import Ranges, fuse_qkv_ranges
from training.initialization import random_checkpoint

LABELS = ["contradiction", "entailment", "neutral"]
HEADS = {"squad": QUESTION_ANSWERING, "glue": CLASSIFICATION}
TASKS = tuple(HEADS)


def rough_ranges(config: BertConfig, tensors: dict[str, np.ndarray], mode: Mode) -> Ranges:
    """Ranges of about the right size without a calibration: some values clip, most do not.

    No two are equal: ratios of small whole numbers would put values exactly on the border between two integers.
    """
    ranges: Ranges = {}
    for scope, row in all_quantizers(config.num_hidden_layers).items():
        if row.is_weight:
            ranges[scope] = weight_amax(tensors[scope.removesuffix("_quantizer")], mode.per_channel, name=scope)
        else:
            largest = {"softmax_input_quantizer": 12.0, "matmul_a_input_quantizer": 0.9}.get(scope.rsplit("/")[-1], 3.7)
            ranges[scope] = np.float32(largest * (1 + 0.1 * np.random.default_rng(zlib.crc32(_tensor(scope))).random()))
    return fuse_qkv_ranges(ranges, config.num_hidden_layers) if mode.fuse_qkv else ranges


def _tensor(scope: str) -> bytes:
    """Query, key and value see one tensor, and have one range."""
    return re.sub("/(query|key|value)/input_quantizer", "/input_quantizer", scope).encode()


def tiny_checkpoint(task: str = "squad", mode: Mode | str | None = None, seed: int = 0, **changes) -> Checkpoint:
    """A tiny model with its head; with a mode also with ranges for it."""
    config = tiny_config(**changes)
    if task == "glue":
        tensors = random_checkpoint(config, CLASSIFICATION, seed, len(LABELS)).tensors
        rng = np.random.default_rng(seed)
        for array in tensors.values():
            if array.ndim == 1:
                array += (0.2 * rng.standard_normal(array.shape)).astype(np.float32)
        config = config.with_labels(LABELS)
    else:
        tensors = tiny_tensors(config, seed)
    ranges = {}
    if mode is not None:
        ranges = rough_ranges(config, tensors, get_mode(mode) if isinstance(mode, str) else mode)
    return Checkpoint(tensors=tensors, ranges=ranges, config=config, source="tiny")


def tiny_source(task: str = "squad", mode: Mode | str | None = None, seed: int = 0, **changes) -> Source:
    """`tiny_checkpoint` as a source."""
    checkpoint = tiny_checkpoint(task, mode, seed, **changes)
    assert checkpoint.config is not None
    return make_source(checkpoint, checkpoint.config)


def int8(mode: str, **settings) -> ExportSettings:
    """Settings of an int8 model whose sums are exact on every CPU: 7-bit weights under onnxruntime."""
    reduce_range = settings.get("target", "onnxruntime") == "onnxruntime"
    return ExportSettings("int8", get_mode(mode), **({"reduce_range": reduce_range, "vnni": False} | settings))


def exported(source: Source, settings: ExportSettings, folder: Path) -> tuple[Path, Metadata]:
    """Writes the model, unchecked; returns its path and metadata."""
    export_model(source, settings, folder)
    path = folder / "model.onnx"
    return path, read_model(path)[1]


def run_both(source: Source, settings: ExportSettings, folder: Path) -> tuple[OnnxPredictor, Backend]:
    """The model under onnxruntime, and its reference under PyTorch."""
    make_backend("pytorch", tiny_config())  # sets one thread
    return OnnxPredictor(*exported(source, settings, folder), threads=1), make_reference(source, settings, "pytorch")


def largest_difference(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], mask: np.ndarray) -> float:
    """Of logits: at tokens where they belong to positions."""
    assert list(found) == list(expected)
    differences = []
    for name, logits in expected.items():
        assert found[name].shape == logits.shape and found[name].dtype == np.float32
        difference = np.abs(found[name] - logits)
        differences.append(difference[mask > 0] if difference.shape == mask.shape else difference)
    return max(float(difference.max()) for difference in differences)


def optimized_operators(path: Path, folder: Path) -> tuple[collections.Counter, onnx.GraphProto]:
    """What onnxruntime makes of a model by default: its operators and its graph."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    return collections.Counter(node.op_type for node in graph.node), graph
