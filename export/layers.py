"""Every layer of a model by itself: the file's own nodes, all fed with the embeddings, against a backend of one layer.

End to end, one value on the border between two integers makes every later layer differ, until logits of a deep model
say little about its correctness. A layer that is given the same input as its reference differs only by the few values
that lie on a border in it.
"""

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from backends import create_backend
from backends.base import Batch
from checkpoints.names import CLASSIFICATION, QUESTION_ANSWERING
from export.embeddings import rounded_tables
from export.grids import make_grids
from export.metadata import Metadata
from export.model_outline import read_outline
from export.portable_form import rounded_biases
from export.runtime import open_session, run_session, session_options
from export.settings import ExportSettings
from export.source import Source
from twinquant.memory import large_blocks_freed_at_once, release_freed_memory

_FINAL = "final_input_quantizer"  # sees the last layer's output, and belongs to none
_WORDS = "bert/embeddings/word_embeddings"
# Of a layer's size: a layer that is left in float, wholly or but for little, is moved by less than float noise.
_LEAST_MOVED = 1e-3


def layer_differences(
    path: Path,
    metadata: Metadata,
    source: Source,
    settings: ExportSettings,
    backend_name: str,
    batches: Sequence[Batch],
) -> list[float]:
    """Per layer: the mean difference to the backend as a share of what fake quantization changes in that layer.

    That is taken to be a thousandth of the layer's output at least, for layers that are left in float.

    The backend is given what the file holds: rounded embeddings and biases where it has these. Hidden states are
    compared through two random directions, which a backend's span head gives. Of an int8 model only.
    """
    mode = settings.effective_mode
    assert mode is not None
    ranges = source.ranges(mode)
    mode = dataclasses.replace(mode, enabled=mode.enabled - {_FINAL})
    words, own_batches = _words_used(batches)
    config = dataclasses.replace(source.config, num_hidden_layers=1, vocab_size=len(words))
    reference = create_backend(backend_name, config, QUESTION_ANSWERING)
    probe = np.random.default_rng(0).standard_normal((2, config.hidden_size)).astype(np.float32)
    tensors = source.tensors | {_WORDS: source.tensors[_WORDS][words]}
    if settings.int8_embeddings:
        tensors = rounded_tables(tensors)
    if settings.portable:
        tensors = rounded_biases(tensors, make_grids(mode, ranges, source.config.num_hidden_layers))
    with large_blocks_freed_at_once():
        found = _run_layers(path, metadata, source.config.num_hidden_layers, batches)
    release_freed_memory()
    layers = range(source.config.num_hidden_layers)
    floats, expected = [], []
    for layer in layers:  # all float passes first: a backend may compile anew when its quantization changes
        reference.load(_one_layer(tensors, layer, probe))
        floats.append([reference.predict(batch) for batch in own_batches])
    for layer in layers:
        reference.load(_one_layer(tensors, layer, probe))
        own = dataclasses.replace(mode, excluded=frozenset(_of_layer(dict.fromkeys(mode.excluded), layer)))
        reference.set_quantization(own, _of_layer(ranges, layer))
        expected.append([reference.predict(batch) for batch in own_batches])
    shares = []
    for layer in layers:
        difference, moved, size = 0.0, 0.0, 1e-12
        for hidden, unrounded, rounded, batch in zip(
            found[layer], floats[layer], expected[layer], batches, strict=True
        ):
            tokens = batch["input_mask"] > 0
            if source.head == CLASSIFICATION and layer == layers[-1]:  # computed for first positions alone
                tokens = np.zeros_like(tokens)
                tokens[:, 0] = True
                ours = hidden
            else:
                ours = hidden.reshape(*tokens.shape, -1)[tokens]
            difference += float(np.abs(ours @ probe.T - _directions(rounded)[tokens]).sum())
            moved += float(np.abs(_directions(unrounded) - _directions(rounded))[tokens].sum())
            size += float(np.abs(_directions(unrounded))[tokens].sum())
        shares.append(difference / max(moved, _LEAST_MOVED * size))
    return shares


def _words_used(batches: Sequence[Batch]) -> tuple[np.ndarray, list[Batch]]:
    """The token ids of the batches, and the batches by their places: most of the table need not be loaded so often."""
    words = np.unique(np.concatenate([batch["input_ids"].ravel() for batch in batches]))
    return words, [
        {**batch, "input_ids": np.searchsorted(words, batch["input_ids"]).astype(np.int32)} for batch in batches
    ]


def _run_layers(path: Path, metadata: Metadata, layers: int, batches: Sequence[Batch]) -> list[list[np.ndarray]]:
    """Per layer and batch: the layer's output for the embeddings: [B * S, H] or [B, S, H], or [B, H]."""
    model = read_outline(path)
    names = [_output(layer) for layer in range(layers)]
    _feed_with_embeddings(model.graph, names)
    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    with tempfile.TemporaryDirectory() as folder:
        for entry in {e.value for c in model.graph.initializer for e in c.external_data if e.key == "location"}:
            _link(path.parent / entry, Path(folder, entry))
        Path(folder, "layers.onnx").write_bytes(model.SerializeToString())
        del model
        session = open_session(Path(folder, "layers.onnx"), session_options(metadata, lean=True), path)
        outputs = [run_session(session, batch, path) for batch in batches]
    return [list(of_layer) for of_layer in zip(*outputs, strict=True)]


def _feed_with_embeddings(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    """Makes the embeddings the input of every layer."""
    produced = {name for node in graph.node for name in node.output}
    flat, deep = "bert/embeddings/flat", "bert/embeddings/LayerNorm/LayerNormalization"
    start = flat if flat in produced else deep
    for layer, previous in enumerate(names[:-1], start=1):
        for node in graph.node:
            if node.name.startswith(f"bert/encoder/layer_{layer}/"):
                node.input[:] = [start if name == previous else name for name in node.input]


def _link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy: onnxruntime follows no symbolic links to data."""
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)


def _output(layer: int) -> str:
    return f"bert/encoder/layer_{layer}/output/LayerNorm/LayerNormalization"


def _one_layer(tensors: Mapping[str, np.ndarray], layer: int, probe: np.ndarray) -> dict[str, np.ndarray]:
    """The tensors of a span model of that layer alone, its head the probe."""
    prefix = f"bert/encoder/layer_{layer}/"
    kept = {name: array for name, array in tensors.items() if name.startswith("bert/embeddings/")}
    kept |= {
        name.replace(prefix, "bert/encoder/layer_0/"): array
        for name, array in tensors.items()
        if name.startswith(prefix)
    }
    return kept | {"cls/squad/output_weights": probe, "cls/squad/output_bias": np.zeros(2, np.float32)}


def _of_layer(by_scope: Mapping[str, Any], layer: int) -> dict[str, Any]:
    """What belongs to one layer, under the names of layer 0."""
    prefix = f"bert/encoder/layer_{layer}/"
    return {s.replace(prefix, "bert/encoder/layer_0/"): value for s, value in by_scope.items() if s.startswith(prefix)}


def _directions(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Start and end logits as two directions of a hidden state: float32 [B, S, 2]."""
    return np.stack([outputs["start_logits"], outputs["end_logits"]], -1)
