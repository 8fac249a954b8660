"""Our exported models of one checkpoint, and what onnxruntime makes of the same checkpoint.

The weights are random and the ranges rough: neither changes the speed. Peers are given their best settings: uint8
activations, int8 weights per channel, 7 bits of them where the CPU has no VNNI (as ours), MatMul alone quantized by
quantize_static.
"""

import logging
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from backends.base import Batch
from benchmarks.steps import random_batch
from benchmarks.turns import FLOAT, ONNXRUNTIME, OURS, Runner
from checkpoints.config import BertConfig
from checkpoints.names import QUESTION_ANSWERING
from checkpoints.value import Checkpoint
from export.commands import export_model
from export.cpu import has_vnni
from export.metadata import Metadata
from export.runtime import model_feeds, open_session, session_options
from export.settings import ExportSettings
from export.source import Source, make_source
from quantization.calibration import weight_amax
from quantization.modes import MODES, all_quantizers
from quantization.ranges import Ranges, fuse_qkv_ranges
from training.initialization import random_checkpoint

PLAIN, FUSED = "onnxruntime fp32, plain graph", "onnxruntime fp32, its BERT fusion"
FUSED_BY_TORCH = "onnxruntime fp32, its BERT fusion of PyTorch's export"
STATIC = "quantize_static QDQ, plain graph"


def rough_source(config: BertConfig, per_channel: bool) -> Source:
    """A question answering model of random weights with ranges of about the right size.

    No two biases or LayerNorm parameters are equal, as in a trained model: exporters store equal ones once, and
    optimizers and quantizers then do other things to the graph.
    """
    checkpoint = random_checkpoint(config, QUESTION_ANSWERING, seed=0)
    generator = np.random.default_rng(0)
    for array in checkpoint.tensors.values():
        if array.ndim == 1:
            array += (0.02 * generator.standard_normal(array.shape)).astype(np.float32)
    ranges: Ranges = {}
    for scope, row in all_quantizers(config.num_hidden_layers).items():
        if row.is_weight:
            ranges[scope] = weight_amax(checkpoint.tensors[scope.removesuffix("_quantizer")], per_channel, name=scope)
        else:
            ranges[scope] = np.float32(1.0 if "matmul_a" in scope else 4.0)
    if not per_channel:
        ranges = fuse_qkv_ranges(ranges, config.num_hidden_layers)
    return make_source(Checkpoint(checkpoint.tensors, ranges, config, "random weights"), config)


def write_ours(config: BertConfig, folder: Path, modes: Iterable[str]) -> dict[str, Path]:
    """Our models for onnxruntime by name: fp32, the modes in both forms, int8 embeddings, int8-dynamic."""
    vnni = has_vnni()
    paths = {}

    def add(name: str, source: Source, settings: ExportSettings) -> None:
        paths[name] = write_model(source, settings, folder / name.replace(" ", "-").replace(",", ""))

    channels, whole = rough_source(config, True), rough_source(config, False)
    add("ours fp32", channels, ExportSettings())
    for mode in (MODES[name] for name in modes):
        for portable in (False, True):
            settings = ExportSettings("int8", mode, portable=portable, reduce_range=not vnni, vnni=vnni)
            add(our_name(mode.name, portable), channels if mode.per_channel else whole, settings)
    settings = ExportSettings("int8", MODES["ort"], int8_embeddings=True, reduce_range=not vnni, vnni=vnni)
    add("ours ort, int8 embeddings", channels, settings)
    add("ours int8-dynamic", channels, ExportSettings("int8-dynamic", reduce_range=not vnni))
    return paths


def our_name(mode: str, portable: bool = False) -> str:
    """What the model of a mode is called in the table."""
    return f"ours {mode}" + (" portable" if portable else "")


def write_model(source: Source, settings: ExportSettings, folder: Path) -> Path:
    """Exports unchecked; returns the model's path."""
    export_model(source, settings, folder)
    return folder / "model.onnx"


def write_plain(config: BertConfig, folder: Path) -> Path:
    """The checkpoint in fp32 as MatMul and Add with three axes: the graph that every peer's tools know best."""
    return write_model(rough_source(config, True), ExportSettings(target="openvino"), folder / "plain")


def write_peers(plain: Path, config: BertConfig, folder: Path, traced: Path | None = None) -> dict[str, tuple]:
    """(group, path) by name: fp32 fused by onnxruntime.transformers.optimizer, and what its quantizers make.

    Args:
        plain: see `write_plain`.
        traced: the same model as PyTorch exports it, which the optimizer recognizes best; None without PyTorch.
    """
    logging.getLogger().setLevel(logging.ERROR)  # onnxruntime's tools advise on the root logger
    models: dict[str, tuple[str, Path]] = {PLAIN: (FLOAT, plain)}
    graphs = {"plain graph": plain}
    models[FUSED] = (FLOAT, _fuse(plain, config, folder / "fused.onnx"))
    graphs["its BERT fusion"] = models[FUSED][1]
    if traced is not None:
        models[FUSED_BY_TORCH] = (FLOAT, _fuse(traced, config, folder / "fused_by_torch.onnx"))
        graphs["its BERT fusion of PyTorch's export"] = models[FUSED_BY_TORCH][1]
        graphs["PyTorch's export"] = traced
    for kind, graph in graphs.items():
        path = folder / f"dynamic_{len(models)}.onnx"
        _quantize_dynamic(graph, path)
        models[f"quantize_dynamic, {kind}"] = (ONNXRUNTIME, path)
    path = folder / "static.onnx"
    _quantize_static(plain, path, config)
    models[STATIC] = (ONNXRUNTIME, path)
    return models


def open_models(models: Mapping[str, tuple[str, Path]], threads: int) -> Callable[[Batch], list[Runner]]:
    """Sessions as a user opens them: onnxruntime's defaults, with the number of threads; gives runners for a batch."""
    sessions = {}
    for name, (group, path) in models.items():
        options = session_options(Metadata({"target": "onnxruntime", "reduce_range": "true"}), threads)
        # Its threads would go on turning for a while, and take time from the next model.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        sessions[name] = (group, open_session(path, options))

    def runners(batch: Batch) -> list[Runner]:
        feeds = model_feeds(batch)
        return [
            Runner(name, group, lambda session=session: session.run(None, feeds))
            for name, (group, session) in sessions.items()
        ]

    return runners


def our_models(paths: Mapping[str, Path]) -> dict[str, tuple[str, Path]]:
    """Our paths with their group."""
    return {name: (OURS, path) for name, path in paths.items()}


def _fuse(path: Path, config: BertConfig, target: Path) -> Path:
    from onnxruntime.transformers.optimizer import optimize_model

    heads, hidden = config.num_attention_heads, config.hidden_size
    model = optimize_model(str(path), "bert", num_heads=heads, hidden_size=hidden, opt_level=0)
    model.save_model_to_file(str(target))
    return target


def _quantize_dynamic(path: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_dynamic(
            path,
            target,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=not has_vnni(),
            # A fused graph has operators whose types its inference does not know.
            extra_options={"DefaultTensorType": 1},
        )


def _quantize_static(path: Path, target: Path, config: BertConfig) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        """Two batches of random tokens: enough for ranges that need not be good."""

        def __init__(self) -> None:
            self.batches = iter([model_feeds(random_batch(config, 1, 64))] * 2)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_static(
            path,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul"],
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=not has_vnni(),
        )
