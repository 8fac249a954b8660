"""A BERT of a few thousand weights, none of them zero, and batches for it: shared by the tests of several folders."""

import importlib.util
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from backends import create_backend
from backends.base import Backend
from checkpoints.config import BertConfig
from checkpoints.names import QUESTION_ANSWERING
from quantization.modes import all_quantizers
from tasks.base import Features
from training.initialization import random_checkpoint

FRAMEWORKS = {"pytorch": "torch", "tensorflow": "tensorflow"}
PAD_TOKEN = 0


def require(backend_name: str) -> str:
    """The name, or a skip where the backend's framework is not installed."""
    module = FRAMEWORKS[backend_name]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed, so the {backend_name} backend cannot run")
    return backend_name


def tiny_config(**changes) -> BertConfig:
    """2 layers, 4 heads of 8; weights spread wider than BERT's 0.02, so that attention is far from uniform."""
    sizes = {
        "vocab_size": 97,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,
    }
    return BertConfig(**(sizes | changes))


def tiny_tensors(config: BertConfig, seed: int = 0, head: str | None = QUESTION_ANSWERING) -> dict[str, np.ndarray]:
    """Random weights; biases and LayerNorm vary too, so that leaving one out shows."""
    rng = np.random.default_rng(seed)
    tensors = random_checkpoint(config, head, seed).tensors
    for array in tensors.values():
        if array.ndim == 1:
            array += (0.2 * rng.standard_normal(array.shape)).astype(np.float32)
    # Padding must stand out wherever it is not left out, also behind a LayerNorm: one large value.
    tensors["bert/embeddings/word_embeddings"][PAD_TOKEN, 1] = 20.0
    return tensors


def make_backend(name: str, config: BertConfig, tensors: Mapping[str, np.ndarray] | None = None, **keywords) -> Backend:
    """A loaded backend; `tensors` default to `tiny_tensors`, keywords are those of `Backend`."""
    if name == "pytorch":
        import torch

        # Two threads that wait for each other in a spin loop make a tiny model a hundred times slower on a busy
        # machine.
        torch.set_num_threads(1)
    backend = create_backend(name, config, **keywords)
    backend.load(tiny_tensors(config) if tensors is None else tensors)
    return backend


def make_batch(
    config: BertConfig, lengths: Sequence[int], padded: int | None = None, seed: int = 0, labels: bool = False
) -> dict[str, np.ndarray]:
    """Random rows of the given lengths, padded to `padded` or to the longest; row r depends on (seed, r) alone."""
    padded = padded or max(lengths)
    batch = {name: np.zeros((len(lengths), padded), np.int32) for name in ("input_ids", "input_mask", "segment_ids")}
    positions = np.zeros((2, len(lengths)), np.int32)
    for row, length in enumerate(lengths):
        rng = np.random.default_rng([seed, row])
        batch["input_ids"][row, :length] = rng.integers(1, config.vocab_size, length)
        batch["input_mask"][row, :length] = 1
        batch["segment_ids"][row, :length] = np.sort(rng.integers(0, config.type_vocab_size, length))
        positions[:, row] = np.sort(rng.integers(0, length, 2))
    return batch | ({"start_positions": positions[0], "end_positions": positions[1]} if labels else {})


def pad_batch(batch: Mapping[str, np.ndarray], padded: int) -> dict[str, np.ndarray]:
    """The same rows with more padding at their tails."""
    return {
        name: np.pad(array, ((0, 0), (0, padded - array.shape[1]))) if array.ndim == 2 else array
        for name, array in batch.items()
    }


class ToyFeatures(Features):
    """Random rows of 5 to 20 tokens with labels, an in-memory stand-in for a data set."""

    def __init__(self, config: BertConfig, rows: int, seed: int = 0) -> None:
        self.lengths = np.random.default_rng(seed).integers(5, 21, rows).astype(np.int32)
        self.data = make_batch(config, self.lengths.tolist(), 20, seed, labels=True)

    def batch(self, indexes: Sequence[int] | np.ndarray, length: int | None = None) -> dict[str, np.ndarray]:
        length = length or int(self.lengths[indexes].max())
        if (self.lengths[indexes] > length).any():
            raise ValueError("a row is longer than the batch")
        return {
            name: pad_batch({name: array[indexes][:, :length]}, length)[name] if array.ndim == 2 else array[indexes]
            for name, array in self.data.items()
        }


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference as a share of the largest expected magnitude."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def activation_scopes(layers: int) -> list[str]:
    """Every quantizer that sees an activation."""
    return [scope for scope, row in all_quantizers(layers).items() if not row.is_weight]
